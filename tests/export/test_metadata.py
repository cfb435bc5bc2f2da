"""What a graph says of itself is ONNX's own standard where there is one."""

import json

import onnx
import pytest
from onnx import TensorProto, helper

from vaekit.export.metadata import describe


def graph_of_images(num_channels: int) -> onnx.ModelProto:
    shape = ["batch", num_channels, 9, 7]
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, shape)
    mean = helper.make_tensor_value_info("mean", TensorProto.FLOAT, ["batch", num_channels, 9, 7])
    cast = helper.make_node("Cast", ["image"], ["mean"], to=TensorProto.FLOAT)
    return helper.make_model(helper.make_graph([cast], "graph", [image], [mean]))


@pytest.mark.parametrize(
    ("num_channels", "pixel_format"), [(1, "Gray8"), (2, None), (3, "Rgb8"), (4, "Rgba8")]
)
def test_images_are_denoted_with_their_pixel_format(
    num_channels: int, pixel_format: str | None
) -> None:
    model = graph_of_images(num_channels)
    describe(model, "encoder.onnx", "Images to latents.", {"class_names": ["ä"]})
    properties = {each.key: each.value for each in model.metadata_props}
    assert properties.get("Image.BitmapPixelFormat") == pixel_format
    assert properties["Image.NominalPixelRange"] == "NominalRange_0_255"
    assert json.loads(properties["vaekit"]) == {"class_names": ["ä"]}
    (image,) = model.graph.input
    assert image.type.denotation == "IMAGE"
    assert [dim.denotation for dim in image.type.tensor_type.shape.dim] == [
        "DATA_BATCH",
        "DATA_CHANNEL",
        "DATA_FEATURE",
        "DATA_FEATURE",
    ]
    assert model.graph.output[0].type.denotation == ""
    onnx.checker.check_model(model, full_check=True)
