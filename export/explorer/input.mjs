// The card of the image: drawn or picked, as the model sees it, and what comes of it.

import { createDrawing } from "./drawing.mjs";
import { groundOf, prepareFile, readPixels } from "./files.mjs";
import { createGallery } from "./gallery.mjs";
import { createPicture } from "./pictures.mjs";
import { isInkDark, prepare } from "./prepare.mjs";
import { createVerdict } from "./verdict.mjs";

/**
 * Starts with a test image, so that there is something to see.
 *
 * @returns showFile(file), which shows an image file
 */
export function showInput(card, { manifest, samples, shape, store, actions, failed }, first) {
  const { images } = samples;
  const drawing = manifest.image.channels.length === 1 ? showDrawing() : withoutDrawing();

  function showDrawing() {
    const inkIsDark = isInkDark(manifest.image, images.pixels);
    return createDrawing(card.querySelector(".drawing"), manifest.image, inkIsDark, {
      changed(sheet) {
        const image = prepare(sheet, manifest.image, inkIsDark);
        if (image !== null) {
          actions.showImage(image, "the drawing");
        }
      },
      cleared: actions.showNoImage,
    });
  }

  function withoutDrawing() {
    card.querySelector("h2").textContent = "Drop or pick";
    card.querySelector(".advice").textContent =
      "Image files dropped here are prepared as the model's images were.";
    card.querySelector(".drawing").remove();
    return null;
  }

  function pick(index) {
    drawing?.wipe();
    const trueLabel = images.labels?.[index] ?? null;
    actions.showImage(images.at(index), "the test image", { picked: index, trueLabel });
  }

  async function showFile(file) {
    const image = prepareFile(await readPixels(file), manifest.image, groundOf(manifest.image));
    drawing?.wipe();
    actions.showImage(image, file.name);
  }

  const chooser = card.querySelector(".file input");
  card.querySelector(".file button").addEventListener("click", () => chooser.click());
  chooser.addEventListener("change", () => {
    const [file] = chooser.files;
    chooser.value = ""; // or the same file could not be chosen again
    showFile(file).catch(failed);
  });

  const { class_names: classNames } = manifest;
  store.subscribe(createGallery(card.querySelector(".gallery"), images, shape, classNames, pick));

  const prepared = createPicture(card.querySelector(".prepared"), shape);
  const reconstruction = createPicture(card.querySelector(".reconstruction"), shape);
  store.subscribe((state) => {
    prepared(state.image);
    reconstruction(state.reconstruction);
  });

  const verdict = card.querySelector(".verdict");
  if (manifest.score_labels === null) {
    verdict.remove();
  } else {
    store.subscribe(createVerdict(verdict, manifest));
  }

  if (images.num > 0) {
    pick(first);
  }
  return showFile;
}
