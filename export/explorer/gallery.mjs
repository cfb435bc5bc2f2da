// The test images to pick from: radio buttons, so that the arrow keys go through them.

import { paint } from "./pictures.mjs";

/** @returns view(state), which marks the image that is picked */
export function createGallery(root, { num, at, labels }, shape, classNames, picked) {
  root.hidden = num === 0;
  const choices = Array.from({ length: num }, (_, index) => {
    const choice = document.createElement("input");
    choice.type = "radio";
    choice.name = "test-image";
    choice.ariaLabel = labels ? `class ${classNames[labels[index]]}` : `test image ${index + 1}`;
    choice.addEventListener("click", () => picked(index)); // arrow keys click too
    const canvas = document.createElement("canvas");
    canvas.className = "picture";
    paint(canvas, at(index), shape);
    const label = document.createElement("label");
    label.append(choice, canvas);
    return { choice, label };
  });
  root.querySelector(".thumbs").replaceChildren(...choices.map(({ label }) => label));

  return (state) => {
    choices.forEach(({ choice }, index) => {
      choice.checked = index === state.picked;
    });
  };
}
