// Images on canvases, pixel by pixel.

const SMOOTH_FROM = 57; // pixels a side: larger images are shown too small for crisp pixels

/** @returns show(image), which repaints only another image than the last; null is an empty field */
export function createPicture(canvas, shape) {
  let shown;
  return (image) => {
    if (image === shown) {
      return;
    }
    shown = image;
    if (image === null) {
      [, canvas.height, canvas.width] = shape; // which also empties it
    } else {
      paint(canvas, image, shape);
    }
  };
}

/** Shows `image`, bytes [C * H * W] of `shape` [C, H, W]; alpha is composited over white. */
export function paint(canvas, image, [numChannels, height, width]) {
  canvas.height = height;
  canvas.width = width;
  canvas.classList.toggle("smooth", Math.max(height, width) >= SMOOTH_FROM);
  const size = height * width;
  const hasColour = numChannels >= 3;
  const hasAlpha = numChannels % 2 === 0;
  const picture = new ImageData(width, height);
  for (let pixel = 0; pixel < size; pixel++) {
    const alpha = hasAlpha ? image[(numChannels - 1) * size + pixel] / 255 : 1;
    for (let channel = 0; channel < 3; channel++) {
      const value = image[(hasColour ? channel * size : 0) + pixel];
      picture.data[4 * pixel + channel] = alpha * value + (1 - alpha) * 255;
    }
    picture.data[4 * pixel + 3] = 255;
  }
  canvas.getContext("2d").putImageData(picture, 0, 0);
}

/** Has the browser save what a canvas shows as a PNG, pixel by pixel. */
export function save(canvas, name) {
  canvas.toBlob((blob) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  });
}
