// The test images as points on a plane: those whose latents are alike lie close to one another.

import { classMark, drawMark } from "./markers.mjs";
import { paint } from "./pictures.mjs";
import { fit, hearts, neighbour } from "./plane.mjs";
import { nearestRow } from "./samples.mjs";

// In CSS pixels.
const MARGIN = 12;
const [RADIUS, SMALL_RADIUS] = [4.5, 2.2]; // of a point, few or many
const HOVER_REACH = 24;

const MANY = 1500; // points
const MAX_NAME_ON_MAP = 3; // letters; longer names would cover the points
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };

/** Removes the card where the bundle has no map. */
export function showMap(card, { manifest, samples, shape, store, actions, closed }) {
  if (samples.map === null) {
    card.remove();
    return;
  }
  const { points, labels, num } = samples.map;
  const { class_names: classNames } = manifest;
  const field = card.querySelector(".field");
  const marker = field.querySelector(".marker");
  const preview = field.querySelector(".preview");
  const whereabouts = card.querySelector(".place");
  const nameAt = labels === null ? new Map() : hearts(points, labels);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  let plane = null; // how the points lie in the field, once it has a size
  let state = store.get();
  let hovered = null; // the point under the mouse

  function draw() {
    plane = fit(points, field.clientWidth, field.clientHeight, MARGIN);
    const canvas = field.querySelector("canvas");
    const context = sharpContext(canvas, field.clientWidth, field.clientHeight);
    drawPoints(context);
    drawNames(context);
    show();
  }

  function drawPoints(context) {
    const radius = num > MANY ? SMALL_RADIUS : RADIUS;
    context.globalAlpha = 0.8;
    for (let index = 0; index < num; index++) {
      const mark = classMark(labels?.[index] ?? 0, dark.matches);
      drawMark(context, mark, ...plane.toField(index), radius);
    }
    context.globalAlpha = 1;
  }

  function drawNames(context) {
    if (classNames.some((name) => name.length > MAX_NAME_ON_MAP)) {
      return;
    }
    const { fontFamily, backgroundColor, color } = getComputedStyle(field);
    context.font = `700 16px ${fontFamily}`;
    context.textAlign = "center";
    context.textBaseline = "middle";
    context.lineJoin = "round";
    context.lineWidth = 4;
    context.strokeStyle = backgroundColor;
    context.fillStyle = color;
    for (const [label, index] of nameAt) {
      const [x, y] = plane.toField(index);
      context.strokeText(classNames[label], x, y);
      context.fillText(classNames[label], x, y);
    }
  }

  function drawLegend() {
    const present = [...nameAt.keys()].sort((a, b) => a - b);
    const items = present.map((label) => {
      const swatch = document.createElement("canvas");
      drawMark(sharpContext(swatch, 12, 12), classMark(label, dark.matches), 6, 6, 5);
      const item = document.createElement("li");
      item.append(swatch, classNames[label]);
      return item;
    });
    card.querySelector(".legend").replaceChildren(...items);
  }

  function show() {
    if (plane === null || state.place === null) {
      return;
    }
    const { index, exact } = state.place;
    moveTo(marker, plane.toField(index));
    marker.classList.toggle("near", !exact);
    const className = labels === null ? "" : `: ${classNames[labels[index]]}`;
    whereabouts.textContent = `${exact ? "Test image" : "Nearest test image"}${className}`;
    preview.hidden = state.hover === null;
    if (state.hover !== null) {
      showPreview(state.hover);
    }
  }

  function showPreview({ index, image }) {
    const [x, y] = plane.toField(index);
    paint(preview.querySelector("canvas"), image, shape);
    preview.querySelector("figcaption").textContent = classNames[labels?.[index]] ?? "";
    preview.classList.toggle("left", x > field.clientWidth / 2);
    preview.classList.toggle("above", y > field.clientHeight / 2);
    moveTo(preview, [x, y]);
  }

  /** The point nearest to the pointer, and how many pixels away. */
  function pointAt({ clientX, clientY }) {
    const box = field.getBoundingClientRect();
    const [x, y] = [clientX - box.left - field.clientLeft, clientY - box.top - field.clientTop];
    const index = nearestRow(points, plane.fromField(x, y));
    const [pointX, pointY] = plane.toField(index);
    return { index, distance: Math.hypot(x - pointX, y - pointY) };
  }

  function hover(index) {
    if (index !== hovered) {
      hovered = index;
      actions.hover(index);
    }
  }

  // As on the drawing's sheet: a drag is no gesture of the browser's.
  field.addEventListener("touchstart", (event) => event.preventDefault(), { passive: false });
  field.addEventListener("pointerdown", (event) => {
    if (event.button === 0) {
      field.setPointerCapture(event.pointerId);
      hover(null);
      actions.goTo(pointAt(event).index);
    }
  });
  field.addEventListener("pointermove", (event) => {
    const { index, distance } = pointAt(event);
    if (field.hasPointerCapture(event.pointerId)) {
      actions.goTo(index);
    } else {
      hover(distance <= HOVER_REACH ? index : null);
    }
  });
  field.addEventListener("pointerleave", () => hover(null));
  field.addEventListener("keydown", (event) => {
    if (event.key in ARROWS) {
      event.preventDefault();
      actions.goTo(neighbour(points, state.place.index, ARROWS[event.key]));
    }
  });

  new ResizeObserver(draw).observe(field);
  const redraw = () => {
    draw();
    drawLegend();
  };
  dark.addEventListener("change", redraw, { signal: closed });
  drawLegend();

  store.subscribe((newState) => {
    state = newState;
    show();
  });
}

/** The context of a canvas of a size in CSS pixels, in which it is drawn, sharp on any screen. */
function sharpContext(canvas, width, height) {
  const density = window.devicePixelRatio;
  canvas.width = Math.round(width * density);
  canvas.height = Math.round(height * density);
  const context = canvas.getContext("2d");
  context.scale(density, density);
  return context;
}

function moveTo(element, [x, y]) {
  element.style.transform = `translate(${x}px, ${y}px)`;
}
