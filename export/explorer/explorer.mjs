// One open bundle: its model, its state, what can be done with it, and the three cards.

import { createActions, initialState } from "./actions.mjs";
import { showInput } from "./input.mjs";
import { showLatent } from "./latent.mjs";
import { createLink, readLink } from "./link.mjs";
import { showMap } from "./map.mjs";
import { loadModel } from "./model.mjs";
import { createQueue } from "./queue.mjs";
import { readSamples } from "./samples.mjs";
import { createStore } from "./store.mjs";

/** Reads all that the page needs of a bundle: what is damaged is found before anything changes. */
export async function loadExplorer(ort, bundle) {
  try {
    const samples = readSamples(await bundle.json("explorer.json"));
    return { bundle, samples, model: await loadModel(ort, bundle) };
  } catch (error) {
    await bundle.release();
    throw error;
  }
}

/**
 * Shows a loaded bundle.
 *
 * @param root holds a fresh copy of the page's template
 * @param hash of an address, with the state to begin with; "" for none
 * @param failed called with the error of a later inference
 * @returns showFile(file), which shows an image file; close(), a promise of the end of all work
 *   and the release of the memory
 */
export function showExplorer(root, { bundle, samples, model }, hash, failed) {
  const { manifest } = bundle;
  const { shape } = model;
  const queue = createQueue(failed);
  const store = createStore(initialState(manifest.latent.dimensions));
  const actions = createActions(store, queue, model, samples.map);
  const closing = new AbortController();
  const explorer = { manifest, samples, shape, store, actions, failed, closed: closing.signal };
  const link = readLink(hash, samples.images.num, manifest.latent.dimensions);

  showLatent(root.querySelector(".latent"), explorer);
  showMap(root.querySelector(".map"), explorer);
  const showFile = showInput(root.querySelector(".input"), explorer, link.picked ?? 0);
  if (link.latent !== null) {
    actions.moveTo(link.latent, "the link");
  }
  store.subscribe(createLink());

  async function close() {
    closing.abort();
    await queue.drain();
    await bundle.release();
  }

  return { showFile, close };
}
