// A bundle's folder, dropped on the page or chosen in a dialogue.

/**
 * @param page has an input for folders and buttons of class "choose" for it; while something is
 *   dragged over it, it has the class "dragging"
 * @param arrived called with a Map of name => File, the files that lie in the folder itself
 * @param failed called with the error where what was dropped can't be read
 */
export function acceptFolders(page, arrived, failed) {
  const chooser = page.querySelector("input[webkitdirectory]");
  for (const button of page.querySelectorAll(".choose")) {
    button.addEventListener("click", () => chooser.click());
  }
  chooser.addEventListener("change", () => {
    const files = [...chooser.files].filter((file) => depth(file) <= 2);
    chooser.value = ""; // or the same folder could not be chosen again
    arrived(byName(files));
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
      Promise.all(entries.map(filesOf)).then((files) => arrived(byName(files.flat())), failed);
    }
  });
}

async function filesOf(entry) {
  const inside = entry.isDirectory ? await entriesOf(entry) : [entry];
  return Promise.all(
    inside
      .filter(({ isFile }) => isFile)
      .map((each) => new Promise((resolve, reject) => each.file(resolve, reject))),
  );
}

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

function byName(files) {
  return new Map(files.map((file) => [file.name, file]));
}

function depth(file) {
  return file.webkitRelativePath.split("/").length;
}
