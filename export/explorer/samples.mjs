// explorer.json as typed arrays: the test images to pick from, the map, and what lies near what.

/**
 * @returns images: { pixels, labels, num, at(index) }, map: { points, latents, labels, num,
 *   at(index) } or null; `at` gives an image, or a latent of the map
 * @throws Error of one line where the content is of another format
 */
export function readSamples(content) {
  const { format, format_version: version, images, map } = content ?? {};
  if (format !== "vaekit-explorer" || version !== 1) {
    throw new Error(
      `explorer.json says format ${format}, version ${version}; this page reads ` +
        "vaekit-explorer, version 1; take the page that came with the bundle's vaekit",
    );
  }
  const pixels = fromBase64(images.data);
  return {
    images: { pixels, labels: images.labels, ...rows(pixels, images.shape) },
    map: map && readMap(map),
  };
}

function readMap({ points, latents, labels }) {
  const values = new Float32Array(fromBase64(latents.data).buffer);
  return {
    points: new Float32Array(fromBase64(points.data).buffer),
    latents: values,
    labels,
    ...rows(values, latents.shape),
  };
}

/** The row of `values` [n, width], of those that `accepts`, that lies closest to `target` [width]. */
export function nearestRow(values, target, accepts = () => true) {
  const width = target.length;
  let [nearest, least] = [-1, Infinity];
  for (let start = 0; start < values.length; start += width) {
    let distance = 0;
    for (let i = 0; i < width; i++) {
      distance += (values[start + i] - target[i]) ** 2;
    }
    if (distance < least && accepts(start / width)) {
      [nearest, least] = [start / width, distance];
    }
  }
  return nearest;
}

/** The `num` columns of `values` [n, width] with the largest variance, in their own order. */
export function mostVarying(values, width, num) {
  const sums = new Float64Array(width);
  const squares = new Float64Array(width);
  values.forEach((value, index) => {
    sums[index % width] += value;
    squares[index % width] += value * value;
  });
  const numRows = values.length / width;
  const variance = sums.map((sum, i) => squares[i] / numRows - (sum / numRows) ** 2);
  const columns = Array.from(variance.keys());
  return columns
    .sort((a, b) => variance[b] - variance[a])
    .slice(0, num)
    .sort((a, b) => a - b);
}

function rows(values, [num, ...shape]) {
  const size = shape.reduce((product, side) => product * side, 1);
  return { num, at: (index) => values.slice(index * size, (index + 1) * size) };
}

function fromBase64(text) {
  return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
}
