// Runs a vaekit bundle with onnxruntime-node: an example to copy.
//
// `node client.mjs BUNDLE` checks the bundle's files and replays its golden vectors. It exits with 1
// where an output is off, and with 2 where the bundle is not whole or onnxruntime can't run it.

import { readFile } from "node:fs/promises";
import { join } from "node:path";
import * as ort from "onnxruntime-node";
import { checkFiles, openBundle, replayGolden } from "../bundle.mjs";

ort.env.logLevel = "fatal"; // what is wrong is said once, below

async function main(folder) {
  const bundle = await openBundle(ort, (name) => readFile(join(folder, name)));
  await checkFiles(bundle);
  const results = await replayGolden(ort, bundle);
  await bundle.release();

  for (const { graph, output, difference, tolerance } of results) {
    const found = difference.toExponential(1).padStart(8);
    console.log(`${graph.padEnd(16)} ${output.padEnd(13)} ${found}  tolerance ${tolerance}`);
  }
  const off = results.filter(({ within }) => !within);
  for (const { graph, output, difference, tolerance } of off) {
    console.error(`${graph}: ${output} is off by ${difference}, allowed ${tolerance}`);
  }
  if (off.length === 0) {
    console.log("all outputs within tolerance");
  }
  return off.length === 0 ? 0 : 1;
}

const [folder, ...others] = process.argv.slice(2);
if (folder === undefined || others.length > 0) {
  console.error("usage: node client.mjs BUNDLE");
  process.exitCode = 2;
} else {
  try {
    process.exitCode = await main(folder);
  } catch (error) {
    console.error(`${folder}: ${error.message.trim().replace(/\s+/g, " ")}`);
    process.exitCode = 2;
  }
}
