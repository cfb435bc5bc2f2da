// A drawing made into an image of the kind that the model knows. Arrays in, arrays out: no page.

/**
 * Prepares a drawing as the images of the training set were.
 *
 * @param drawing { ink, height, width }: how much ink lies on each pixel, 0 to 255, row by row
 * @param facts the manifest's `image`: height, width, centring, resize_filter
 * @param inkIsDark whether ink is 0 and the ground 255 in the model's images, or the reverse
 * @returns Uint8Array [facts.height * facts.width]; null where nothing is drawn
 */
export function prepare(drawing, facts, inkIsDark) {
  const bounds = inkBounds(drawing);
  if (bounds === null) {
    return null;
  }
  const weigh = facts.resize_filter === "bilinear" ? bilinear : area;
  const image = facts.centring
    ? centred(crop(drawing, bounds), facts, weigh)
    : resize(drawing, facts.height, facts.width, weigh).ink;
  return inkIsDark ? image.map((value) => 255 - value) : image;
}

/** Whether images on paper are dark on light: where the manifest leaves it open, most pixels say. */
export function isInkDark({ polarity }, pixels) {
  if (polarity === "light on dark") {
    return false;
  }
  const numLight = pixels.reduce((count, value) => count + (value > 127), 0);
  return 2 * numLight > pixels.length;
}

/**
 * The drawing scaled so that its longer side fills the box, and placed in the field.
 *
 * By centre of mass it lies as in MNIST: the pixel that holds the centre of mass comes to
 * (height / 2, width / 2), as long as all ink stays in the field.
 */
function centred(drawing, { height, width, centring }, weigh) {
  const scale = centring.box / Math.max(drawing.height, drawing.width);
  const scaled = (side) => Math.max(1, Math.round(side * scale));
  const small = resize(drawing, scaled(drawing.height), scaled(drawing.width), weigh);
  const [top, left] =
    centring.by === "centre of mass"
      ? massOffset(small, height, width)
      : [(height - small.height) >> 1, (width - small.width) >> 1];
  return placed(small, top, left, new Uint8Array(height * width), width);
}

/** A field of a width, row by row, with an image put into it. */
export function placed({ ink, height, width }, top, left, field, fieldWidth) {
  for (let y = 0; y < height; y++) {
    field.set(ink.subarray(y * width, (y + 1) * width), (top + y) * fieldWidth + left);
  }
  return field;
}

function massOffset(drawing, height, width) {
  let [mass, sumY, sumX] = [0, 0, 0];
  drawing.ink.forEach((ink, index) => {
    mass += ink;
    sumY += ink * Math.floor(index / drawing.width);
    sumX += ink * (index % drawing.width);
  });
  const offset = (centre, side, field) =>
    Math.min(Math.max(Math.ceil((field - 1) / 2 - centre), 0), field - side);
  return [offset(sumY / mass, drawing.height, height), offset(sumX / mass, drawing.width, width)];
}

function inkBounds({ ink, height, width }) {
  let [top, bottom, left, right] = [height, -1, width, -1];
  for (let y = 0, index = 0; y < height; y++) {
    for (let x = 0; x < width; x++, index++) {
      if (ink[index] > 0) {
        top = Math.min(top, y);
        bottom = y;
        left = Math.min(left, x);
        right = Math.max(right, x);
      }
    }
  }
  return bottom < 0 ? null : { top, left, height: bottom + 1 - top, width: right + 1 - left };
}

function crop(drawing, { top, left, height, width }) {
  const ink = new Uint8Array(height * width);
  for (let y = 0; y < height; y++) {
    const start = (top + y) * drawing.width + left;
    ink.set(drawing.ink.subarray(start, start + width), y * width);
  }
  return { ink, height, width };
}

/**
 * Resizes the middle, or all, along each axis in turn.
 *
 * Every result is a weighted mean, so nothing is aliased.
 */
export function resize(
  { ink, height, width }, newHeight, newWidth, weigh, usedHeight = height, usedWidth = width,
) {
  const across = weights(width, newWidth, weigh, usedWidth);
  const down = weights(height, newHeight, weigh, usedHeight);
  const narrow = new Float64Array(height * newWidth);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < newWidth; x++) {
      narrow[y * newWidth + x] = weightedSum(across[x], ink, y * width, 1);
    }
  }
  const resized = new Uint8Array(newHeight * newWidth);
  for (let y = 0; y < newHeight; y++) {
    for (let x = 0; x < newWidth; x++) {
      resized[y * newWidth + x] = Math.round(weightedSum(down[y], narrow, x, newWidth));
    }
  }
  return { ink: resized, height: newHeight, width: newWidth };
}

function weightedSum({ first, shares }, values, start, stride) {
  let sum = 0;
  for (let i = 0; i < shares.length; i++) {
    sum += shares[i] * values[start + (first + i) * stride];
  }
  return sum;
}

/** For each of `to` samples, the first of the `from` samples that it is made of, and their shares. */
function weights(from, to, weigh, used) {
  const scale = used / to;
  const reach = Math.max(scale, 1);
  return Array.from({ length: to }, (_, index) => {
    const centre = (from - used) / 2 + (index + 0.5) * scale;
    const first = Math.max(Math.floor(centre - reach), 0);
    const end = Math.min(Math.ceil(centre + reach), from);
    const raw = Array.from({ length: end - first }, (_, i) => weigh(first + i, centre, scale));
    const total = raw.reduce((sum, weight) => sum + weight, 0);
    return { first, shares: raw.map((weight) => weight / total) };
  });
}

/** How much of a sample of width 1 lies under the result's own width. */
function area(sample, centre, scale) {
  const start = Math.max(sample, centre - scale / 2);
  const end = Math.min(sample + 1, centre + scale / 2);
  return Math.max(0, end - start);
}

/** A tent twice as wide as the result, as Pillow's bilinear filter is where it makes smaller. */
export function bilinear(sample, centre, scale) {
  return Math.max(0, 1 - Math.abs(sample + 0.5 - centre) / Math.max(scale, 1));
}
