// The canvas to draw on, with mouse, touch or pen.

const LONGER_SIDE = 560; // pixels of the drawing, whatever its size on the screen
const STROKE = 0.085; // of the shorter side: near a digit's own stroke after preparation

/**
 * @param root holds the canvas, a hint for the empty sheet and a button to clear it
 * @param size { height, width } of the model's images, whose proportions the sheet gets
 * @param inkIsDark whether to draw dark on light
 * @param changed called with { ink, height, width }, at most once a frame while the pen moves
 * @param cleared called when the button was pressed
 * @returns wipe(), which empties the sheet
 */
export function createDrawing(root, { height, width }, inkIsDark, { changed, cleared }) {
  const canvas = root.querySelector("canvas");
  const scale = LONGER_SIDE / Math.max(height, width);
  canvas.height = Math.round(height * scale);
  canvas.width = Math.round(width * scale);
  root.classList.toggle("paper", inkIsDark);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.lineCap = context.lineJoin = "round";
  context.lineWidth = STROKE * Math.min(canvas.height, canvas.width);
  context.strokeStyle = context.fillStyle = inkIsDark ? "#000" : "#fff";

  let pen = null; // the pointer that draws, its last position, and how far the line has come
  let frame = null;

  // A finger here makes no gesture, or a browser may take the next tap for the end of a fling.
  canvas.addEventListener("touchstart", (event) => event.preventDefault(), { passive: false });

  canvas.addEventListener("pointerdown", (event) => {
    if (pen !== null || event.button !== 0) {
      return;
    }
    event.preventDefault();
    canvas.setPointerCapture(event.pointerId);
    const point = position(event);
    pen = { id: event.pointerId, last: point, reached: point };
    dot(point);
  });

  canvas.addEventListener("pointermove", (event) => {
    if (event.pointerId !== pen?.id) {
      return;
    }
    const between = event.getCoalescedEvents?.() ?? [];
    for (const each of between.length > 0 ? between : [event]) {
      const point = position(each);
      const middle = { x: (pen.last.x + point.x) / 2, y: (pen.last.y + point.y) / 2 };
      line(pen.reached, pen.last, middle);
      pen.reached = middle;
      pen.last = point;
    }
  });

  for (const end of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(end, (event) => {
      if (event.pointerId === pen?.id) {
        line(pen.reached, pen.last, pen.last);
        pen = null;
      }
    });
  }

  function position({ clientX, clientY }) {
    const box = canvas.getBoundingClientRect();
    return {
      x: ((clientX - box.left) / box.width) * canvas.width,
      y: ((clientY - box.top) / box.height) * canvas.height,
    };
  }

  root.querySelector(".clear").addEventListener("click", () => {
    wipe();
    cleared();
  });

  /** A curve that bends towards the pen's position: through middles, a stroke has no corners. */
  function line(from, towards, to) {
    context.beginPath();
    context.moveTo(from.x, from.y);
    context.quadraticCurveTo(towards.x, towards.y, to.x, to.y);
    context.stroke();
    inked();
  }

  /** A line of no length leaves no ink, not even with round ends. */
  function dot({ x, y }) {
    context.beginPath();
    context.arc(x, y, context.lineWidth / 2, 0, 2 * Math.PI);
    context.fill();
    inked();
  }

  function inked() {
    root.classList.add("drawn");
    frame ??= requestAnimationFrame(() => {
      frame = null;
      changed(read());
    });
  }

  function read() {
    const { data, height, width } = context.getImageData(0, 0, canvas.width, canvas.height);
    const ink = new Uint8Array(height * width);
    for (let pixel = 0; pixel < ink.length; pixel++) {
      ink[pixel] = data[4 * pixel + 3];
    }
    return { ink, height, width };
  }

  function wipe() {
    context.clearRect(0, 0, canvas.width, canvas.height);
    root.classList.remove("drawn");
    cancelAnimationFrame(frame);
    frame = null;
  }

  return { wipe };
}
