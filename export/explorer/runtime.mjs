// onnxruntime-web, which is fetched from beside the page.

const MAX_THREADS = 4;

/** Rejects with one line where it isn't there. */
export async function loadRuntime() {
  const ort = await importRuntime();
  // Threads share memory, which a browser grants only to cross-origin isolated pages.
  const { crossOriginIsolated, navigator } = globalThis;
  const numCores = navigator.hardwareConcurrency;
  ort.env.wasm.numThreads = crossOriginIsolated ? Math.min(MAX_THREADS, numCores) : 1;
  ort.env.wasm.wasmPaths = new URL("./ort/", import.meta.url).href;
  return ort;
}

async function importRuntime() {
  try {
    return await import("./ort/ort.wasm.min.mjs");
  } catch (error) {
    throw new Error(
      `onnxruntime-web is not beside the page, in ort/ (${error.message}); serve it there`,
    );
  }
}
