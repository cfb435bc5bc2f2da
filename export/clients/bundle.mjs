// Opens a vaekit bundle and proves it. Knows neither files nor pages: the caller brings onnxruntime
// (onnxruntime-node or onnxruntime-web) and a way to read a file, so it runs wherever they do.

// How the text of a manifest ends: its last entry is the sha256 of the text without that entry.
const SEAL = /,\n {2}"sha256": "([0-9a-f]{64})"\n\}\n$/;

const ARRAYS = { uint8: Uint8Array, float32: Float32Array, int64: BigInt64Array };

/**
 * Reads and checks the manifest; every other file is checked against it before it is used.
 *
 * @param ort onnxruntime-node or onnxruntime-web
 * @param read name => Promise<Uint8Array>, the bytes of one of the bundle's files
 * @param sessionOptions given to each ort.InferenceSession
 * @returns manifest; bytes(name), json(name) and session(name), promises of a checked file, what it
 *   holds, and its graph's session (made once); release(), to be awaited when the bundle is done with
 * @throws Error of one line, as do the functions it returns
 */
export async function openBundle(ort, read, sessionOptions = {}) {
  const manifest = await parseManifest(await readFile(read, "manifest.json"));
  const sessions = new Map();

  async function bytes(name) {
    if (!Object.hasOwn(manifest.files, name)) {
      const names = Object.keys(manifest.files).join(", ");
      throw new Error(`${name} is not in this bundle, which has ${names}; check the name`);
    }
    const content = await readFile(read, name);
    await checkIntegrity(name, content, manifest.files[name].sha256);
    return content;
  }

  const json = async (name) => parseJson(name, await bytes(name));

  function session(name) {
    if (!sessions.has(name)) {
      const made = bytes(name).then((model) => ort.InferenceSession.create(model, sessionOptions));
      sessions.set(name, made);
    }
    return sessions.get(name);
  }

  async function release() {
    const settled = await Promise.allSettled(sessions.values());
    sessions.clear();
    await Promise.all(settled.map(({ value }) => value?.release()));
  }

  return { manifest, bytes, json, session, release };
}

/** Checks every file that the manifest lists, also those that nothing here reads. */
export async function checkFiles(bundle) {
  for (const name of Object.keys(bundle.manifest.files)) {
    await bundle.bytes(name);
  }
}

/**
 * Feeds golden.json's inputs to their graphs and compares the outputs with those it records, which
 * must be all that the manifest lists.
 *
 * @returns one { graph, output, difference, tolerance, within } for each output, where `difference`
 *   is the largest absolute one, NaN where an output is NaN
 */
export async function replayGolden(ort, bundle) {
  const { cases } = await bundle.json("golden.json");
  requireAllOutputs(cases, bundle.manifest.graphs);
  const results = [];
  for (const { graph, inputs, outputs } of cases) {
    const session = await bundle.session(graph);
    const feeds = mapValues(inputs, (input) => tensor(ort, input));
    const computed = await session.run(feeds, Object.keys(outputs));
    for (const [output, expected] of Object.entries(outputs)) {
      const difference = largestDifference(`${graph}: ${output}`, computed[output], expected);
      const { tolerance } = expected;
      results.push({ graph, output, difference, tolerance, within: difference <= tolerance });
    }
  }
  return results;
}

/**
 * The class of each image, all that many an application needs.
 *
 * @param images { shape: [N, C, H, W], data: flat bytes }, prepared as the manifest's `image` says
 * @returns N class names; null where an image's latents were not finite
 */
export async function classify(ort, bundle, images) {
  const session = await bundle.session("classifier.onnx");
  const feeds = { image: tensor(ort, { type: "uint8", ...images }) };
  const { label } = await session.run(feeds, ["label"]);
  return Array.from(label.data, (index) => bundle.manifest.class_names[index] ?? null);
}

/** An ort.Tensor of flat numbers: { type: "uint8" | "float32" | "int64", shape, data }. */
export function tensor(ort, { type, shape, data }) {
  const convert = type === "int64" ? BigInt : Number;
  return new ort.Tensor(type, ARRAYS[type].from(data, convert), shape);
}

async function parseManifest(content) {
  const manifest = parseJson("manifest.json", content);
  const { format, format_version: version } = manifest ?? {};
  if (format !== "vaekit-bundle" || version !== 1) {
    throw new Error(
      `manifest.json says format ${format}, version ${version}; this client reads ` +
        "vaekit-bundle, version 1; take the client that came with the bundle's vaekit",
    );
  }
  await checkSeal(new TextDecoder().decode(content));
  const astray = Object.keys(manifest.files).find((name) => /[\\/]|^\.*$/.test(name));
  if (astray !== undefined) {
    throw new Error(
      `manifest.json lists ${astray}, expected names of files in the bundle's own folder; ` +
        "don't use this bundle",
    );
  }
  return manifest;
}

async function checkSeal(text) {
  const [seal, sha256] = text.match(SEAL) ?? [];
  if (seal === undefined) {
    throw new Error(
      "manifest.json is damaged: it does not end with its own sha256; " +
        "copy or export the bundle again",
    );
  }
  const sealed = new TextEncoder().encode(`${text.slice(0, -seal.length)}\n}\n`);
  await checkIntegrity("manifest.json", sealed, sha256);
}

function parseJson(name, content) {
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(content));
  } catch (error) {
    throw new Error(`${name} is no JSON (${error.message}); export the bundle again`);
  }
}

async function readFile(read, name) {
  try {
    return await read(name);
  } catch (error) {
    throw new Error(`${name} cannot be read (${error.message}); is this a bundle's folder?`);
  }
}

async function checkIntegrity(name, content, expectedSha256) {
  if (!globalThis.crypto?.subtle) {
    throw new Error("no crypto.subtle here to check files with; use https or localhost");
  }
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", content));
  const sha256 = Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
  if (sha256 !== expectedSha256) {
    throw new Error(
      `${name} is damaged: its sha256 is ${sha256}, expected ${expectedSha256}; ` +
        "copy or export the bundle again",
    );
  }
}

function requireAllOutputs(cases, graphs) {
  const given = cases.flatMap(({ graph, outputs }) =>
    Object.keys(outputs).map((output) => `${graph} ${output}`),
  );
  const listed = Object.entries(graphs).flatMap(([graph, { outputs }]) =>
    outputs.map(({ name }) => `${graph} ${name}`),
  );
  const amiss = [
    ...listed.filter((output) => !given.includes(output)),
    ...given.filter((output) => !listed.includes(output)),
  ];
  if (amiss.length > 0 || given.length === 0) {
    throw new Error(
      `golden.json does not have the outputs that manifest.json lists ` +
        `(${amiss.join(", ") || "both have none"}); export the bundle again`,
    );
  }
}

function largestDifference(where, { type, dims, data }, expected) {
  const found = `${type} [${dims}]`;
  const wanted = `${expected.type} [${expected.shape}]`;
  if (found !== wanted) {
    throw new Error(`${where} is ${found}, golden.json says ${wanted}; export the bundle again`);
  }
  let largest = 0;
  for (let i = 0; i < data.length; i++) {
    largest = Math.max(largest, Math.abs(Number(data[i]) - expected.data[i]));
  }
  return largest;
}

function mapValues(object, change) {
  return Object.fromEntries(Object.entries(object).map(([key, value]) => [key, change(value)]));
}
