// The test images as points on a plane: those whose latents are alike lie close to one another.

import { classMark, drawMark } from "./markers.mjs";
import { paint } from "./pictures.mjs";
import { fit, hearts, neighbour } from "./plane.mjs";
import { nearestRow } from "./samples.mjs";

// In CSS pixels.
const MARGIN = 12;
const [RADIUS, SMALL_RADIUS] = [4.5, 2.2]; // of a point, few or many
const HOVER_REACH = 24;
const THUMB = 40; // the longer side of an image on the map

const MAX_ZOOM = 60;
const ZOOM_STEP = 1.5;
const MAX_THUMBS = 60; // images in view: decoding them takes well under a second
const THUMBS_AFTER = 150; // ms without a change of the view

const MANY = 1500; // points
const MAX_NAME_ON_MAP = 3; // letters; longer names would cover the points
const FADED = 0.08; // points of classes that are not shown
const ZOOM_KEYS = { "+": ZOOM_STEP, "=": ZOOM_STEP, "-": 1 / ZOOM_STEP, 0: 0 };
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
  let view = { zoom: 1, centre: null };
  const chosen = new Set(); // labels whose points are shown; all where it is empty
  const thumbs = new Map(); // of points that were in view at a zoom: canvases
  const pressed = new Map(); // pointers on the field, of a mouse or fingers: where they are
  let isPinch = false; // from the second finger's touch until the last one's end
  let timer = null; // until images are drawn

  const isShown = (index) => chosen.size === 0 || chosen.has(labels[index]);

  function draw() {
    plane = fit(points, field.clientWidth, field.clientHeight, MARGIN, view);
    const canvas = field.querySelector("canvas");
    const context = sharpContext(canvas, field.clientWidth, field.clientHeight);
    const inView = view.zoom === 1 ? [] : indicesInView();
    const asImages = inView.length <= MAX_THUMBS ? inView : [];
    drawPoints(context);
    for (const index of asImages.filter((each) => thumbs.has(each))) {
      drawThumb(context, index);
    }
    if (asImages.length === 0) {
      drawNames(context);
    }
    clearTimeout(timer);
    const missing = asImages.filter((index) => !thumbs.has(index));
    if (missing.length > 0) {
      timer = setTimeout(() => actions.picture(missing, addThumb), THUMBS_AFTER);
    }
    show();
  }

  function indicesInView() {
    const isInView = ([x, y]) =>
      x >= 0 && y >= 0 && x <= field.clientWidth && y <= field.clientHeight;
    return Array.from({ length: num }, (_, index) => index).filter(
      (index) => isShown(index) && isInView(plane.toField(index)),
    );
  }

  function addThumb(index, image) {
    const canvas = document.createElement("canvas");
    paint(canvas, image, shape);
    thumbs.set(index, canvas);
    draw();
  }

  function drawThumb(context, index) {
    const canvas = thumbs.get(index);
    const scale = THUMB / Math.max(canvas.width, canvas.height);
    const [width, height] = [scale * canvas.width, scale * canvas.height];
    const [x, y] = plane.toField(index);
    const { colour } = classMark(labels?.[index] ?? 0, dark.matches);
    context.fillStyle = colour;
    context.fillRect(x - width / 2 - 2, y - height / 2 - 2, width + 4, height + 4);
    context.drawImage(canvas, x - width / 2, y - height / 2, width, height);
  }

  /** By a factor about a position of the field, which stays where it is; 0 shows all again. */
  function zoom(factor, [x, y]) {
    const fixed = plane.fromField(x, y);
    const zoomed = Math.min(MAX_ZOOM, Math.max(1, view.zoom * factor));
    if (zoomed === 1) {
      view = { zoom: 1, centre: null };
    } else {
      const centre = plane.fromField(field.clientWidth / 2, field.clientHeight / 2);
      const share = view.zoom / zoomed;
      view = { zoom: zoomed, centre: centre.map((c, i) => fixed[i] + (c - fixed[i]) * share) };
    }
    draw();
  }

  const markerAt = () => plane.toField(state.place.index);

  function pan(byX, byY) {
    const middle = [field.clientWidth / 2 - byX, field.clientHeight / 2 - byY];
    view = { ...view, centre: plane.fromField(...middle) };
    draw();
  }

  /** Moves what is seen where the marker would leave it. */
  function follow() {
    const [x, y] = markerAt();
    if (x < 0 || y < 0 || x > field.clientWidth || y > field.clientHeight) {
      pan(field.clientWidth / 2 - x, field.clientHeight / 2 - y);
    }
  }

  function drawPoints(context) {
    const radius = num > MANY ? SMALL_RADIUS : RADIUS;
    for (let index = 0; index < num; index++) {
      context.globalAlpha = isShown(index) ? 0.8 : FADED;
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
      if (!isShown(index)) {
        continue;
      }
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
      const button = document.createElement("button");
      button.type = "button";
      button.ariaPressed = String(chosen.has(label));
      button.append(swatch, classNames[label]);
      button.addEventListener("click", () => {
        const wasChosen = chosen.delete(label);
        if (!wasChosen) {
          chosen.add(label);
        }
        button.ariaPressed = String(!wasChosen);
        draw();
      });
      const item = document.createElement("li");
      item.append(button);
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
    const which = labels === null ? ` ${index + 1} of ${num}` : `: ${classNames[labels[index]]}`;
    whereabouts.textContent = `${exact ? "Test image" : "Nearest test image"}${which}`;
    preview.hidden = state.hover === null;
    if (state.hover !== null) {
      showPreview(state.hover);
    }
  }

  function showPreview({ index, image }) {
    const [x, y] = plane.toField(index);
    paint(preview.querySelector("canvas"), image, shape);
    preview.querySelector("figcaption").textContent = classNames[labels?.[index]] ?? index + 1;
    preview.classList.toggle("left", x > field.clientWidth / 2);
    preview.classList.toggle("above", y > field.clientHeight / 2);
    moveTo(preview, [x, y]);
  }

  function positionOf({ clientX, clientY }) {
    const box = field.getBoundingClientRect();
    return [clientX - box.left - field.clientLeft, clientY - box.top - field.clientTop];
  }

  /** The point nearest to the pointer, and how many pixels away. */
  function pointAt(event) {
    const [x, y] = positionOf(event);
    const index = nearestRow(points, plane.fromField(x, y), isShown);
    const [pointX, pointY] = plane.toField(index);
    return { index, distance: Math.hypot(x - pointX, y - pointY) };
  }

  /** Zooms and moves what lies between two fingers with them. */
  function pinch(event) {
    const [before, spreadBefore] = between([...pressed.values()]);
    pressed.set(event.pointerId, positionOf(event));
    const [after, spread] = between([...pressed.values()]);
    zoom(spread / spreadBefore, before);
    if (view.zoom > 1) {
      pan(after[0] - before[0], after[1] - before[1]);
    }
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
      pressed.set(event.pointerId, positionOf(event));
      isPinch ||= pressed.size > 1;
      hover(null);
      if (!event.shiftKey && !isPinch) {
        actions.goTo(pointAt(event).index);
      }
    }
  });
  field.addEventListener("lostpointercapture", (event) => {
    pressed.delete(event.pointerId);
    isPinch &&= pressed.size > 0;
  });
  field.addEventListener("pointermove", (event) => {
    const { index, distance } = pointAt(event);
    if (isPinch) {
      if (pressed.size === 2 && pressed.has(event.pointerId)) {
        pinch(event);
      }
    } else if (pressed.has(event.pointerId) && event.shiftKey) {
      pan(event.movementX, event.movementY);
    } else if (pressed.has(event.pointerId)) {
      actions.goTo(index);
    } else {
      hover(distance <= HOVER_REACH ? index : null);
    }
  });
  field.addEventListener("pointerleave", () => hover(null));
  field.addEventListener("keydown", (event) => {
    if (event.key in ARROWS) {
      event.preventDefault();
      actions.goTo(neighbour(points, state.place.index, ARROWS[event.key], isShown));
      follow();
    } else if (event.key in ZOOM_KEYS && !event.ctrlKey && !event.metaKey) {
      event.preventDefault();
      zoom(ZOOM_KEYS[event.key], markerAt());
    }
  });
  // The page scrolls over a map that nobody uses; a trackpad's pinch is a wheel with Ctrl.
  field.addEventListener(
    "wheel",
    (event) => {
      if (event.ctrlKey || document.activeElement === field) {
        event.preventDefault();
        const speed = event.ctrlKey ? 0.01 : 0.002;
        zoom(Math.exp(-speed * event.deltaY), positionOf(event));
      }
    },
    { passive: false },
  );
  for (const [name, key] of [["nearer", "+"], ["farther", "-"], ["whole", "0"]]) {
    const button = card.querySelector(`.${name}`);
    button.addEventListener("click", () => zoom(ZOOM_KEYS[key], markerAt()));
  }

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

/** The middle of two positions, and how far they are apart: a pixel or more. */
function between([[x1, y1], [x2, y2]]) {
  return [[(x1 + x2) / 2, (y1 + y2) / 2], Math.max(1, Math.hypot(x1 - x2, y1 - y2))];
}

function moveTo(element, [x, y]) {
  element.style.transform = `translate(${x}px, ${y}px)`;
}
