// The bytes of a bundle's files, from a web server or from a folder of this machine.

const MEGABYTE = 1e6;

/** @returns read(name) for `openBundle`, which tells `say` how far it is */
export function readFrom(address, say) {
  return async (name) => {
    const response = await fetch(address + name);
    if (!response.ok) {
      throw new Error(`HTTP status ${response.status}`);
    }
    const size = Number(response.headers.get("Content-Length")); // 0 where it is not told
    let received = 0;
    const counted = new TransformStream({
      transform(part, controller) {
        received += part.length;
        say(`Reading ${name}: ${megabytes(received)} of ${megabytes(size || received)} MB`);
        controller.enqueue(part);
      },
    });
    return new Uint8Array(await new Response(response.body.pipeThrough(counted)).arrayBuffer());
  };
}

/** The same out of `files`, a Map of name => File. */
export function readOut(files, say) {
  return async (name) => {
    const file = files.get(name);
    if (file === undefined) {
      throw new Error("it is not in the folder");
    }
    say(`Reading ${name}: ${megabytes(file.size)} MB`);
    return new Uint8Array(await file.arrayBuffer());
  };
}

function megabytes(bytes) {
  return (bytes / MEGABYTE).toFixed(1);
}
