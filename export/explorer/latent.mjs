// The card of the latent space: sliders, and the image that they give.

import { createPicture, save } from "./pictures.mjs";
import { mostVarying } from "./samples.mjs";
import { createSliders } from "./sliders.mjs";

const MAX_SLIDERS = 24;
const BETWEEN = "a point between two images"; // an origin
const LEAST_LIMIT = 4; // of a slider: four standard deviations of the prior

export function showLatent(card, { manifest, samples, shape, store, actions }) {
  const { map } = samples;
  const numDimensions = manifest.latent.dimensions;
  const latents = map?.latents ?? new Float32Array(numDimensions);
  const shown = mostVarying(latents, numDimensions, MAX_SLIDERS);
  const limit = latents.reduce((most, value) => Math.max(most, Math.abs(value)), LEAST_LIMIT);

  const sliders = card.querySelector(".sliders");
  store.subscribe(createSliders(sliders, shown, Math.ceil(limit), actions.moveAlong));
  card.querySelector(".omitted").textContent =
    shown.length < numDimensions
      ? `The ${shown.length} of ${numDimensions} dimensions in which the test images differ most.`
      : "";

  const decoded = createPicture(card.querySelector(".decoded"), shape);
  const origin = card.querySelector(".origin");
  const reading = card.querySelector(".reading");
  store.subscribe((state) => {
    decoded(state.decoded);
    origin.textContent = state.origin && `Decoded from ${state.origin}`;
    reading.textContent = readAs(state.reading);
  });

  function readAs(verdict) {
    if (verdict === null) {
      return "";
    }
    return verdict.label < 0 ? "read as nothing" : `read as ${manifest.class_names[verdict.label]}`;
  }

  showBetween(card, store, actions);

  card.querySelector(".save").addEventListener("click", () => {
    save(card.querySelector(".decoded"), `${manifest.source.run}.png`);
  });

  card.querySelector(".centre").addEventListener("click", () => {
    actions.moveTo(new Float32Array(numDimensions), "the centre of the prior");
  });
  card.querySelector(".random").addEventListener("click", () => {
    actions.moveTo(Float32Array.from({ length: numDimensions }, normal), "a draw from the prior");
  });
}

/** A slider on the line from a latent that was held to the one that was shown when it is moved. */
function showBetween(card, store, actions) {
  const row = card.querySelector(".between");
  const slider = row.querySelector("input");
  let held = null;
  let ends = null; // of the line, while the slider moves along it

  card.querySelector(".hold").addEventListener("click", () => {
    held = store.get().latent;
    ends = null;
    slider.value = 0;
    row.hidden = false;
  });
  slider.addEventListener("input", () => {
    ends ??= [held, store.get().latent];
    const [from, to] = ends;
    const share = slider.valueAsNumber;
    actions.moveTo(from.map((value, i) => value + share * (to[i] - value)), BETWEEN);
  });
  store.subscribe(({ latent, origin }) => {
    if (origin !== BETWEEN && latent !== held) {
      ends = null;
      slider.value = 1;
    }
  });
}

/** A standard normal number (Box and Muller, 1958). */
function normal() {
  const radius = Math.sqrt(-2 * Math.log(1 - Math.random()));
  return radius * Math.cos(2 * Math.PI * Math.random());
}
