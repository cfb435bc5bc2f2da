// What can be done on the page: each action changes the state, and inference follows.

import { nearestRow } from "./samples.mjs";

/** The state before anything is shown. */
export function initialState(numDimensions) {
  return {
    image: null, // what the model sees, bytes [C * H * W]
    picked: null, // the index of the test image that it is
    trueLabel: null,
    verdict: null, // { label, scores } of the image
    reconstruction: null,
    latent: new Float32Array(numDimensions),
    origin: "", // of the latent, in words
    decoded: null, // the image that the latent gives
    reading: null, // { label, scores } of that image
    place: null, // of the latent on the map: { index, exact }
    hover: null, // what is under the mouse there: { index, image }
  };
}

/** The actions on a store of such a state; `map` is that of `readSamples`, or null. */
export function createActions(store, queue, model, map) {
  let numMoves = 0; // of the latent: a later one wins over the mean of an image still at work

  function showImage(image, origin, { picked = null, trueLabel = null } = {}) {
    const movesBefore = numMoves;
    store.update({ image, picked, trueLabel });
    queue.submit("image", async () => {
      const posterior = await model.encode(image);
      const latent = posterior.mean.data;
      const verdict = await model.classify(posterior);
      const reconstruction = await model.decode(latent);
      store.update({ verdict, reconstruction });
      if (numMoves === movesBefore) {
        const reading = await model.read(reconstruction);
        const place = nearestPlace(latent);
        store.update({ latent, origin, decoded: reconstruction, reading, place });
      }
    });
  }

  function showNoImage() {
    store.update({ image: null, picked: null, trueLabel: null });
    queue.submit("image", async () => store.update({ verdict: null, reconstruction: null }));
  }

  function moveTo(latent, origin, place = nearestPlace(latent)) {
    numMoves++;
    store.update({ latent, origin, place });
    queue.submit("latent", async () => {
      const decoded = await model.decode(latent);
      store.update({ decoded, reading: await model.read(decoded) });
    });
  }

  function moveAlong(dimension, value) {
    moveTo(store.get().latent.with(dimension, value), "the sliders");
  }

  function goTo(index) {
    moveTo(map.at(index), "a point of the map", { index, exact: true });
  }

  function hover(index) {
    queue.submit("hover", async () => {
      const image = index === null ? null : await model.decode(map.at(index));
      store.update({ hover: image && { index, image } });
    });
  }

  /** Decodes points of the map, and hands each to `show(index, image)`. */
  function picture(indices, show) {
    queue.submit("pictures", async () => {
      for (const index of indices) {
        show(index, await model.decode(map.at(index)));
      }
    });
  }

  function nearestPlace(latent) {
    return map && { index: nearestRow(map.latents, latent), exact: false };
  }

  return { showImage, showNoImage, moveTo, moveAlong, goTo, hover, picture };
}
