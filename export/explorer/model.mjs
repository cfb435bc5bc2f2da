// The bundle's graphs as functions of one image or one latent.

/**
 * Loads the sessions one after the other; of the SVM only where the bundle has one.
 *
 * Images are Uint8Arrays [C * H * W], latents Float32Arrays.
 */
export async function loadModel(ort, bundle) {
  const { channels, height, width } = bundle.manifest.image;
  const shape = [channels.length, height, width];
  const encoder = await bundle.session("encoder.onnx");
  const decoder = await bundle.session("decoder.onnx");
  const svm = "svm.onnx" in bundle.manifest.files ? await bundle.session("svm.onnx") : null;

  /** The posterior of an image: tensors `mean` and `log_variance` [1, L]. */
  function encode(image) {
    return encoder.run({ image: new ort.Tensor("uint8", image, [1, ...shape]) });
  }

  async function decode(latent) {
    const { image } = await decoder.run({
      latent: new ort.Tensor("float32", latent, [1, latent.length]),
    });
    return new Uint8Array(Uint8ClampedArray.from(image.data, (value) => 255 * value).buffer);
  }

  /** What the SVM says of an image, such as a decoded one; null without an SVM. */
  async function read(image) {
    return svm === null ? null : classify(await encode(image));
  }

  /** { label, scores } of a posterior; null without an SVM. */
  async function classify(posterior) {
    if (svm === null) {
      return null;
    }
    const { label, scores } = await svm.run(posterior, ["label", "scores"]);
    return { label: Number(label.data[0]), scores: scores.data };
  }

  return { shape, encode, decode, classify, read };
}
