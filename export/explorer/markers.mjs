// The mark of each class: ten colours, then the same colours with the next shape.

// Those of the report's figures. Any two differ by at least 0.13 in OKLab, in normal vision and
// with full protanopia, deuteranopia or tritanopia (simulated after Machado et al., 2009).
const ON_LIGHT = [
  "#2195e7", "#f4249c", "#208329", "#810eea", "#aaae50",
  "#7b1b0d", "#29d5d9", "#2b2092", "#c1ed18", "#241323",
];
// The like of them that stand out from a dark ground; any two differ by at least 0.11.
const ON_DARK = [
  "#2ab8f0", "#f66f9f", "#7dae29", "#a962ff", "#c9c582",
  "#c35655", "#47e5fe", "#6154c5", "#b6f61a", "#fbffff",
];

const UP = -Math.PI / 2;
const SHAPES = [
  polygon(24, 0), // as good as a circle
  polygon(3, UP),
  polygon(4, Math.PI / 4),
  polygon(4, 0),
  polygon(3, -UP),
  star(4, 0),
  star(4, Math.PI / 4),
  polygon(3, Math.PI),
  polygon(3, 0),
  star(5, UP),
];

/** The colour and the corners [x, y], within 1 of the origin, of a class. */
export function classMark(label, onDark) {
  const colours = onDark ? ON_DARK : ON_LIGHT;
  return {
    colour: colours[label % colours.length],
    shape: SHAPES[Math.floor(label / colours.length) % SHAPES.length],
  };
}

export function drawMark(context, { colour, shape }, x, y, radius) {
  context.fillStyle = colour;
  context.beginPath();
  for (const [dx, dy] of shape) {
    context.lineTo(x + radius * dx, y + radius * dy);
  }
  context.fill();
}

function polygon(corners, rotation) {
  return Array.from({ length: corners }, (_, i) => {
    const angle = rotation + (2 * Math.PI * i) / corners;
    return [Math.cos(angle), Math.sin(angle)];
  });
}

function star(points, rotation) {
  return polygon(2 * points, rotation).map(([x, y], i) => (i % 2 ? [0.4 * x, 0.4 * y] : [x, y]));
}
