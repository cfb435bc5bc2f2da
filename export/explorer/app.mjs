// The page: opens the bundle that lies beside it, or one that is dropped, and says how it goes.

import { openBundle } from "./bundle.mjs";
import { acceptFolders } from "./drop.mjs";
import { loadExplorer, showExplorer } from "./explorer.mjs";
import { showHeader } from "./header.mjs";
import { readFrom, readOut } from "./read.mjs";
import { loadRuntime } from "./runtime.mjs";

const BESIDE = "./bundle/";

const status = document.querySelector("#status");
let explorer = null; // the open one
let opening = Promise.resolve(); // the one that is being opened, after those before it

acceptFolders(document.body, accept, fail);
openBeside().catch(fail);

/** Opens a folder; a lone image file is for the bundle that is open. */
function accept(files) {
  const [file] = files.values();
  if (files.size === 1 && file.type.startsWith("image/") && explorer !== null) {
    explorer.showFile(file).then(() => say(""), fail);
  } else {
    open(readOut(files, say));
  }
}

async function openBeside() {
  const { ok } = await fetch(`${BESIDE}manifest.json`);
  if (ok) {
    open(readFrom(BESIDE, say), location.hash);
  } else {
    say("");
    document.body.classList.add("empty");
  }
}

function open(read, hash = "") {
  opening = opening.then(() => replaceExplorer(read, hash)).catch(fail);
}

/** Loads first, so that a bundle that can't be opened leaves the page as it is. */
async function replaceExplorer(read, hash) {
  say("Loading onnxruntime …");
  const ort = await loadRuntime();
  const bundle = await openBundle(ort, read);
  const loaded = await loadExplorer(ort, bundle);

  await explorer?.close();
  const root = document.querySelector("#explorer");
  root.replaceChildren(document.querySelector("#views").content.cloneNode(true));
  document.body.classList.remove("empty");
  showHeader(document, bundle.manifest);
  explorer = showExplorer(root, loaded, hash, fail);
  say("");
}

function say(words) {
  status.textContent = words;
  status.classList.remove("error");
}

function fail(error) {
  status.textContent = error.message;
  status.classList.add("error");
}
