// The part of the address that restores what is shown: the picked image, and the latent.

const PAUSE = 250; // ms without a change before the address follows

/** @returns { picked, latent } of an address's hash, null each where it has none that fits */
export function readLink(hash, numImages, numDimensions) {
  const parts = new URLSearchParams(hash.slice(1));
  const picked = Number(parts.get("image") ?? NaN);
  const latent = Float32Array.from((parts.get("z") ?? "").split(","), Number);
  return {
    picked: Number.isInteger(picked) && picked >= 0 && picked < numImages ? picked : null,
    latent: latent.length === numDimensions && latent.every(Number.isFinite) ? latent : null,
  };
}

/** The hash for a state, from which `readLink` gets the same image and, to four digits, latent. */
export function linkTo({ picked, latent }) {
  const image = picked === null ? "" : `image=${picked}&`;
  return `#${image}z=${Array.from(latent, (value) => Number(value.toPrecision(4))).join(",")}`;
}

/** @returns view(state), which keeps the page's address up to date */
export function createLink() {
  let timer = null;
  return (state) => {
    clearTimeout(timer);
    timer = setTimeout(() => history.replaceState(null, "", linkTo(state)), PAUSE);
  };
}
