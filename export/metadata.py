"""What a graph says of itself: ONNX's standard metadata, and vaekit's own as JSON."""

import json
from typing import Any

import onnx

from vaekit import __version__

# ONNX's names of pixel formats, by the number of channels; it has none for grey with alpha.
PIXEL_FORMATS = {1: "Gray8", 3: "Rgb8", 4: "Rgba8"}
IMAGE_DIMENSIONS = ("DATA_BATCH", "DATA_CHANNEL", "DATA_FEATURE", "DATA_FEATURE")


def describe(model: onnx.ModelProto, name: str, text: str, metadata: dict[str, Any]) -> None:
    """Name the graph, say in a sentence what it computes, and attach `metadata` as JSON."""
    model.producer_name, model.producer_version = "vaekit", __version__
    model.graph.name = name.removesuffix(".onnx")
    model.doc_string = text
    properties = {"vaekit": json.dumps(metadata, ensure_ascii=False)}
    images = [value for value in (*model.graph.input, *model.graph.output) if value.name == "image"]
    for image in images:
        properties |= _denote_image(image)
    onnx.helper.set_model_props(model, properties)


def signature(model: onnx.ModelProto) -> dict[str, list[dict[str, Any]]]:
    """The names, types and shapes of what a graph takes and gives, as the manifest has them."""
    return {
        "inputs": [_value(each) for each in model.graph.input],
        "outputs": [_value(each) for each in model.graph.output],
    }


def _denote_image(image: onnx.ValueInfoProto) -> dict[str, str]:
    """Mark a value as an image, as ONNX's type and dimension denotations have it."""
    image.type.denotation = "IMAGE"
    shape = image.type.tensor_type.shape
    for dimension, denotation in zip(shape.dim, IMAGE_DIMENSIONS, strict=True):
        dimension.denotation = denotation
    is_uint8 = image.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    properties = {
        "Image.ColorSpaceGamma": "SRGB",
        "Image.NominalPixelRange": "NominalRange_0_255" if is_uint8 else "Normalized_0_1",
    }
    num_channels = shape.dim[1].dim_value
    if num_channels in PIXEL_FORMATS:
        properties["Image.BitmapPixelFormat"] = PIXEL_FORMATS[num_channels]
    return properties


def _value(value: onnx.ValueInfoProto) -> dict[str, Any]:
    tensor = value.type.tensor_type
    return {
        "name": value.name,
        "type": str(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)),
        "shape": [dim.dim_param or dim.dim_value for dim in tensor.shape.dim],
    }
