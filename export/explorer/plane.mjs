// Where the map's points lie: on a field of the page, and beside one another. Pure geometry.

const MAX_HEART_POINTS = 300; // of a class; its heart among that many is near enough

/**
 * Points [n, 2], y upwards, as they fit a field of CSS pixels, y downwards, without distortion.
 *
 * @param view { zoom, centre }: how many times as large, about which of the points' positions;
 *   null is their middle
 * @returns toField(index) => [x, y] in pixels; fromField(x, y) => [x, y] among the points
 */
export function fit(points, width, height, margin, view) {
  const [low, high] = [[Infinity, Infinity], [-Infinity, -Infinity]];
  points.forEach((value, index) => {
    low[index % 2] = Math.min(low[index % 2], value);
    high[index % 2] = Math.max(high[index % 2], value);
  });
  const span = [high[0] - low[0] || 1, high[1] - low[1] || 1];
  const whole = Math.min((width - 2 * margin) / span[0], (height - 2 * margin) / span[1]);
  const scale = view.zoom * whole;
  const middle = view.centre ?? [(low[0] + high[0]) / 2, (low[1] + high[1]) / 2];
  return {
    toField: (index) => [
      width / 2 + scale * (points[2 * index] - middle[0]),
      height / 2 - scale * (points[2 * index + 1] - middle[1]),
    ],
    fromField: (x, y) => [
      middle[0] + (x - width / 2) / scale,
      middle[1] - (y - height / 2) / scale,
    ],
  };
}

/**
 * The nearest point within 45 degrees of a direction, y upwards, of those that `accepts`;
 * `index` itself at the edge.
 */
export function neighbour(points, index, [towardsX, towardsY], accepts) {
  let [nearest, least] = [index, Infinity];
  for (let other = 0; other < points.length / 2; other++) {
    if (!accepts(other)) {
      continue;
    }
    const x = points[2 * other] - points[2 * index];
    const y = points[2 * other + 1] - points[2 * index + 1];
    const along = x * towardsX + y * towardsY;
    const aside = Math.abs(x * towardsY - y * towardsX);
    const distance = Math.hypot(x, y);
    if (along > 0 && aside <= along && distance < least) {
      [nearest, least] = [other, distance];
    }
  }
  return nearest;
}

/**
 * For each label, the point that lies closest to a third of its class.
 *
 * Of a class in two clusters it is in the larger one, where a mean would fall between.
 */
export function hearts(points, labels) {
  const indices = Array.from(labels.keys());
  const ofClass = (label) => indices.filter((index) => labels[index] === label);
  return new Map([...new Set(labels)].map((label) => [label, heart(points, ofClass(label))]));
}

function heart(points, indices) {
  const step = Math.ceil(indices.length / MAX_HEART_POINTS);
  const some = indices.filter((_, i) => i % step === 0);
  const reach = some.map((a) => {
    const distances = some.map((b) =>
      Math.hypot(points[2 * a] - points[2 * b], points[2 * a + 1] - points[2 * b + 1]),
    );
    return distances.sort((x, y) => x - y)[Math.floor(some.length / 3)];
  });
  return some[reach.indexOf(Math.min(...reach))];
}
