// A bundle's folder, or its run's, or an image file, dropped on the page or chosen in a dialogue.

const BUNDLES = ["onnx-int8", "onnx-fp16", "onnx"]; // in a run's folder; the smallest first

/**
 * @param page has an input for folders and buttons of class "choose" for it; while something is
 *   dragged over it, it has the class "dragging"
 * @param arrived called with a Map of name => File: the bundle's files, or what there is
 * @param failed called with the error where what was dropped can't be read
 */
export function acceptFolders(page, arrived, failed) {
  const chooser = page.querySelector("input[webkitdirectory]");
  for (const button of page.querySelectorAll(".choose")) {
    button.addEventListener("click", () => chooser.click());
  }
  chooser.addEventListener("change", () => {
    const files = [...chooser.files].map((file) => [below(file.webkitRelativePath), file]);
    chooser.value = ""; // or the same folder could not be chosen again
    arrived(bundleOf(new Map(files)));
  });

  page.addEventListener("dragover", (event) => {
    event.preventDefault();
    page.classList.add("dragging");
  });
  page.addEventListener("dragleave", (event) => {
    if (event.relatedTarget === null) {
      page.classList.remove("dragging");
    }
  });
  page.addEventListener("drop", (event) => {
    event.preventDefault();
    page.classList.remove("dragging");
    const entries = [...event.dataTransfer.items]
      .map((item) => item.webkitGetAsEntry())
      .filter((entry) => entry !== null);
    if (entries.length > 0) {
      Promise.all(entries.map(filesOf)).then(
        (files) => arrived(bundleOf(new Map(files.flat()))),
        failed,
      );
    }
  });
}

/** [path, File] of a file, or of those in a folder and in its folders of bundles. */
async function filesOf(entry) {
  const inside = entry.isDirectory ? await entriesOf(entry) : [entry];
  const parts = await Promise.all(
    inside.map(async (each) => {
      if (each.isFile) {
        return [[each.name, await fileOf(each)]];
      }
      if (!BUNDLES.includes(each.name)) {
        return [];
      }
      const files = (await entriesOf(each)).filter(({ isFile }) => isFile);
      return Promise.all(
        files.map(async (file) => [`${each.name}/${file.name}`, await fileOf(file)]),
      );
    }),
  );
  return parts.flat();
}

const fileOf = (entry) => new Promise((resolve, reject) => entry.file(resolve, reject));

/** All of a folder's entries: a reader gives them in parts, an empty one last. */
async function entriesOf(folder) {
  const reader = folder.createReader();
  const entries = [];
  for (;;) {
    const part = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (part.length === 0) {
      return entries;
    }
    entries.push(...part);
  }
}

/** The files of the bundle among those of a folder, by name; where there is none, the folder's. */
function bundleOf(files) {
  const folders = ["", ...BUNDLES.map((name) => `${name}/`)];
  const folder = folders.find((each) => files.has(`${each}manifest.json`)) ?? "";
  return new Map(
    [...files]
      .filter(([path]) => path.startsWith(folder))
      .map(([path, file]) => [path.slice(folder.length), file])
      .filter(([name]) => !name.includes("/")),
  );
}

const below = (path) => path.slice(path.indexOf("/") + 1);
