"""What Triton reads of a bundle is a ModelConfig, and fits the graphs."""

import re
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
from bundle_helpers import facts_of
from conftest import run_command
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format

from vaekit.export.compare import MAX_BATCH
from vaekit.export.triton import labels_text, model_config

FIELD = descriptor_pb2.FieldDescriptorProto
# The parts in use of triton-inference-server/common's model_config.proto, by its names and numbers.
MESSAGES: dict[str, dict[str, tuple[int, int, str, bool]]] = {
    "ModelTensorReshape": {"shape": (1, FIELD.TYPE_INT64, "", True)},
    "ModelInput": {
        "name": (1, FIELD.TYPE_STRING, "", False),
        "data_type": (2, FIELD.TYPE_ENUM, "DataType", False),
        "dims": (4, FIELD.TYPE_INT64, "", True),
        "reshape": (5, FIELD.TYPE_MESSAGE, "ModelTensorReshape", False),
    },
    "ModelOutput": {
        "name": (1, FIELD.TYPE_STRING, "", False),
        "data_type": (2, FIELD.TYPE_ENUM, "DataType", False),
        "dims": (3, FIELD.TYPE_INT64, "", True),
        "label_filename": (4, FIELD.TYPE_STRING, "", False),
        "reshape": (5, FIELD.TYPE_MESSAGE, "ModelTensorReshape", False),
    },
    "ModelDynamicBatching": {},
    "ModelConfig": {
        "max_batch_size": (4, FIELD.TYPE_INT32, "", False),
        "input": (5, FIELD.TYPE_MESSAGE, "ModelInput", True),
        "output": (6, FIELD.TYPE_MESSAGE, "ModelOutput", True),
        "dynamic_batching": (11, FIELD.TYPE_MESSAGE, "ModelDynamicBatching", False),
        "backend": (17, FIELD.TYPE_STRING, "", False),
    },
}
DATA_TYPES = {"TYPE_UINT8": 2, "TYPE_INT64": 9, "TYPE_FP32": 11}
OF_ONNXRUNTIME = {
    "TYPE_UINT8": "tensor(uint8)",
    "TYPE_INT64": "tensor(int64)",
    "TYPE_FP32": "tensor(float)",
}


@pytest.fixture(scope="module")
def parse() -> Any:
    """The strict parser of protobuf's text format, which refuses an unknown field or name."""
    file = descriptor_pb2.FileDescriptorProto(name="model.proto", package="inference")
    file.syntax = "proto3"
    data_type = file.enum_type.add(name="DataType")
    data_type.value.add(name="TYPE_INVALID", number=0)
    for name, number in DATA_TYPES.items():
        data_type.value.add(name=name, number=number)
    for message, fields in MESSAGES.items():
        described = file.message_type.add(name=message)
        for name, (number, kind, type_name, is_repeated) in fields.items():
            field = described.field.add(name=name, number=number, type=kind)
            field.label = FIELD.LABEL_REPEATED if is_repeated else FIELD.LABEL_OPTIONAL
            if type_name:
                field.type_name = f".inference.{type_name}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    config = message_factory.GetMessageClass(pool.FindMessageTypeByName("inference.ModelConfig"))
    return lambda text: text_format.Parse(text, config())


@pytest.mark.parametrize(
    ("kind", "folder"),
    [("exported_run", "onnx"), pytest.param("rounded_run", "onnx-fp16", marks=pytest.mark.slow)],
)
def test_each_graph_has_a_config_of_its_inputs_and_outputs(
    kind: str, folder: str, parse: Any, request: pytest.FixtureRequest
) -> None:
    bundle = request.getfixturevalue(kind) / folder
    for name in facts_of(bundle)["graphs"]:
        config = parse((bundle / name).with_suffix(".pbtxt").read_text())
        assert (config.backend, config.max_batch_size) == ("onnxruntime", MAX_BATCH)
        assert config.HasField("dynamic_batching")
        session = onnxruntime.InferenceSession(bundle / name)
        for stated, values in (
            (config.input, session.get_inputs()),
            (config.output, session.get_outputs()),
        ):
            assert [each.name for each in stated] == [each.name for each in values]
            for each, value in zip(stated, values, strict=True):
                kind = each.DESCRIPTOR.fields_by_name["data_type"].enum_type
                assert OF_ONNXRUNTIME[kind.values_by_number[each.data_type].name] == value.type
                dims = each.reshape.shape if each.HasField("reshape") else each.dims
                assert list(dims) == value.shape[1:]
                assert len(each.dims) > 0  # Triton takes none without


def test_labels_are_a_line_each_and_those_of_the_columns_of_the_scores(
    exported_run: Path, parse: Any
) -> None:
    bundle = exported_run / "onnx"
    names = facts_of(bundle)["class_names"]
    assert (bundle / "labels.txt").read_text().splitlines() == names
    outputs = parse((bundle / "classifier.pbtxt").read_text()).output
    assert {each.name: each.label_filename for each in outputs} == {
        "label": "",
        "scores": "labels.txt",
    }


def test_the_lines_of_the_readme_make_a_model_repository(bundle: Path) -> None:
    (commands,) = re.findall(r"```sh\n(.*?)```", (bundle / "README.md").read_text(), re.DOTALL)
    result = run_command(["sh", "-ec", commands], cwd=bundle)
    assert result.returncode == 0, result.stderr
    made = bundle / "models"
    for name in facts_of(bundle)["graphs"]:
        folder = made / name.removesuffix(".onnx")
        assert (folder / "1" / "model.onnx").read_bytes() == (bundle / name).read_bytes()
        config = (bundle / name).with_suffix(".pbtxt")
        assert (folder / "config.pbtxt").read_bytes() == config.read_bytes()
        assert (folder / "labels.txt").is_file()


def test_scores_of_some_classes_alone_are_not_named_by_the_lines_of_all(
    exported_run: Path, parse: Any
) -> None:
    signature = facts_of(exported_run / "onnx")["graphs"]["svm.onnx"]
    outputs = parse(model_config(signature, scores_are_of_labels=False)).output
    assert not any(each.label_filename for each in outputs)


def test_a_name_is_one_line_whatever_it_holds() -> None:
    assert labels_text(["a", "b\nc", "", "ä \u2028 d"]).split("\n") == ["a", "b c", "", "ä   d", ""]
