// A slider for each latent dimension.

import { decimals } from "./numbers.mjs";

const STEP = 0.01;

/**
 * @param dimensions those that get a slider
 * @param limit sliders go from -limit to limit
 * @param moved called with (dimension, value)
 * @returns view(state)
 */
export function createSliders(root, dimensions, limit, moved) {
  const sliders = dimensions.map((dimension) => newSlider(dimension, limit, moved));
  root.replaceChildren(...sliders.map(({ row }) => row));

  return ({ latent }) => {
    for (const { dimension, input, value } of sliders) {
      // Set where it differs, or a slider on the move would lose the thumb's own position.
      if (Math.abs(input.valueAsNumber - latent[dimension]) >= STEP) {
        input.value = latent[dimension];
      }
      value.textContent = decimals(latent[dimension]);
    }
  };
}

function newSlider(dimension, limit, moved) {
  const row = document.createElement("label");
  const name = document.createElement("span");
  name.textContent = `z${dimension + 1}`;
  const input = document.createElement("input");
  input.type = "range";
  input.min = -limit;
  input.max = limit;
  input.step = STEP;
  input.value = 0;
  input.addEventListener("input", () => moved(dimension, input.valueAsNumber));
  const value = document.createElement("span");
  value.className = "value";
  row.append(name, input, value);
  return { dimension, row, input, value };
}
