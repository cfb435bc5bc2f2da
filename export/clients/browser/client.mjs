// Runs a vaekit bundle with onnxruntime-web: an example to copy.
//
// Served beside it: bundle.mjs, the bundle in bundle/, and in ort/ three files of onnxruntime-web's
// dist/: ort.wasm.min.mjs, ort-wasm-simd-threaded.mjs and ort-wasm-simd-threaded.wasm.

import * as ort from "./ort/ort.wasm.min.mjs";
import { checkFiles, openBundle, replayGolden } from "./bundle.mjs";

// Threads share memory, which a browser grants only to cross-origin isolated pages.
if (!globalThis.crossOriginIsolated) {
  ort.env.wasm.numThreads = 1;
}
ort.env.wasm.wasmPaths = new URL("./ort/", import.meta.url).href;

async function read(name) {
  const response = await fetch(new URL(`./bundle/${name}`, import.meta.url));
  if (!response.ok) {
    throw new Error(`HTTP status ${response.status}`);
  }
  return new Uint8Array(await response.arrayBuffer());
}

async function main() {
  const bundle = await openBundle(ort, read);
  await checkFiles(bundle);
  const results = await replayGolden(ort, bundle);
  await bundle.release();

  const table = document.querySelector("table");
  for (const { graph, output, difference, tolerance } of results) {
    const row = table.tBodies[0].insertRow();
    for (const text of [graph, output, difference.toExponential(1), tolerance]) {
      row.insertCell().textContent = text;
    }
  }
  table.hidden = false;
  const off = results.filter(({ within }) => !within);
  return off.length === 0
    ? "all outputs within tolerance"
    : off
        .map(({ graph, output, difference, tolerance }) =>
          `${graph}: ${output} is off by ${difference}, allowed ${tolerance}`)
        .join("; ");
}

const verdict = document.querySelector("#verdict");
try {
  verdict.textContent = await main();
} catch (error) {
  verdict.textContent = error.message;
}
