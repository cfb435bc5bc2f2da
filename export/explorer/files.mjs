// An image file made into an image of the kind that the model knows, as `vaekit encode` does it.

import { bilinear, placed, resize } from "./prepare.mjs";

/** The pixels of a file, { data: RGBA bytes, height, width }, turned as its EXIF data say. */
export async function readPixels(file) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, {
      imageOrientation: "from-image",
      colorSpaceConversion: "none",
      premultiplyAlpha: "none",
    });
  } catch {
    throw new Error(`${file.name} is no image that this browser can read; save it as PNG`);
  }
  const { height, width } = bitmap;
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d");
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  return { data: context.getImageData(0, 0, width, height).data, height, width };
}

/** [red, green, blue] of what transparent images lie on; null where hidden colours show. */
export function groundOf({ background, polarity }) {
  if (background === null) {
    return null;
  }
  const context = new OffscreenCanvas(1, 1).getContext("2d");
  context.fillStyle = background ?? (polarity === "light on dark" ? "black" : "white");
  context.fillRect(0, 0, 1, 1);
  return Array.from(context.getImageData(0, 0, 1, 1).data.slice(0, 3));
}

/**
 * @param pixels those of `readPixels`
 * @param facts the manifest's `image`: channels, height, width, fit
 * @param ground that of `groundOf`; bars beside a padded image have it, or else are black
 * @returns Uint8Array [channels * height * width]
 */
export function prepareFile(pixels, facts, ground) {
  const { channels, height, width } = facts;
  const hasAlpha = channels.includes("alpha");
  const planes = hasAlpha ? premultiplied(pixels) : opaque(pixels, ground);
  const [red, green, blue, alpha] = planes.map((ink) => ({ ...pixels, ink }));
  const colours = channels.includes("grey") ? [greyOf(red, green, blue)] : [red, green, blue];
  const wanted = hasAlpha ? [...colours, alpha] : colours;
  const bars = hasAlpha ? [0, 0, 0] : (ground ?? [0, 0, 0]);
  const barOf = channels.includes("grey") ? [luma(...bars), 0] : [...bars, 0];
  const fitted = wanted.map((plane, i) => fit(plane, facts, barOf[i]));
  if (hasAlpha) {
    const ofAlpha = fitted.at(-1);
    for (const plane of fitted.slice(0, -1)) {
      plane.forEach((value, i) => {
        plane[i] = ofAlpha[i] === 0 ? value : Math.min(255, Math.floor((255 * value) / ofAlpha[i]));
      });
    }
  }
  const image = new Uint8Array(channels.length * height * width);
  fitted.forEach((plane, i) => image.set(plane, i * height * width));
  return image;
}

function fit(plane, { height, width, fit: how = "stretch" }, bar) {
  const across = width / plane.width;
  const down = height / plane.height;
  if (how === "crop") {
    const scale = Math.max(across, down);
    return resize(plane, height, width, bilinear, height / scale, width / scale).ink;
  }
  if (how === "stretch") {
    return resize(plane, height, width, bilinear).ink;
  }
  const scale = Math.min(across, down);
  const scaled = (side) => Math.max(1, Math.round(side * scale));
  const small = resize(plane, scaled(plane.height), scaled(plane.width), bilinear);
  const [top, left] = [(height - small.height) >> 1, (width - small.width) >> 1];
  return placed(small, top, left, new Uint8Array(height * width).fill(bar), width);
}

/** Four planes, the colours composited on the ground, if there is one. */
function opaque(pixels, ground) {
  return planesOf(pixels, (value, alpha, channel) =>
    ground === null ? value : (alpha / 255) * value + (1 - alpha / 255) * ground[channel],
  );
}

/** Four planes, the colours times alpha, as Pillow resizes them. */
function premultiplied(pixels) {
  return planesOf(pixels, (value, alpha) => (value * alpha) / 255);
}

/** Four planes: `colourOf(value, alpha, channel)` of each colour, and alpha as it is. */
function planesOf({ data }, colourOf) {
  return [0, 1, 2, 3].map((channel) =>
    Uint8Array.from({ length: data.length / 4 }, (_, i) => {
      const [value, alpha] = [data[4 * i + channel], data[4 * i + 3]];
      return channel === 3 ? alpha : Math.round(colourOf(value, alpha, channel));
    }),
  );
}

function greyOf(red, green, blue) {
  const ink = red.ink.map((value, i) => luma(value, green.ink[i], blue.ink[i]));
  return { ...red, ink };
}

const luma = (red, green, blue) => Math.round(0.299 * red + 0.587 * green + 0.114 * blue);
