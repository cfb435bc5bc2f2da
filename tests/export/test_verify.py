"""`vaekit export --check`: what it refuses, before anything is loaded, and what it needs."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import assert_one_line_error, run_command, vaekit
from test_manifest import facts_of, forge

from vaekit.errors import UserError
from vaekit.export import verify as room
from vaekit.export.manifest import GoldenCase, read_golden, write_golden
from vaekit.export.verify import verify
from vaekit.storage.files import file_sha256


@pytest.fixture
def nothing_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: object) -> None:
        raise AssertionError("a graph was loaded")

    monkeypatch.setattr(room, "_replay", load)


def hash_anew(bundle: Path, **changes: object) -> None:
    """Make the manifest fit the files, as one who forges a bundle would."""
    files = {
        name: {"bytes": (bundle / name).stat().st_size, "sha256": file_sha256(bundle / name)}
        for name in facts_of(bundle)["files"]
    }
    forge(bundle, files=files, **changes)


def rewrite(path: Path, change: Callable[[onnx.ModelProto], None]) -> None:
    model = onnx.load(path)
    change(model)
    path.write_bytes(model.SerializeToString())
    hash_anew(path.parent)


@pytest.mark.parametrize("folder", ["onnx", "onnx-fp16"])
def test_a_bundle_as_exported_passes(exported_run: Path, folder: str) -> None:
    replayed = verify(exported_run / folder)
    outputs = {(each.graph, each.output) for each in replayed}
    assert ("encoder.onnx", "mean") in outputs
    assert ("classifier.onnx", "label") in outputs
    assert len(outputs) == 8
    assert all(each.difference <= each.tolerance for each in replayed)


def test_the_command_line_checks_a_bundle(exported_run: Path, bundle: Path) -> None:
    result = vaekit("export", "--check", exported_run / "onnx")
    assert result.returncode == 0, result.stderr
    assert "whole, and within tolerance" in result.stdout
    (bundle / "golden.json").unlink()
    assert_one_line_error(vaekit("export", "--check", bundle), "golden.json: missing")


def test_the_check_needs_no_torch(exported_run: Path) -> None:
    blocked = "import sys; sys.modules.update(dict.fromkeys(['torch', 'sklearn', 'jsonargparse']))"
    code = f"{blocked}; sys.argv[1:] = [{str(exported_run / 'onnx')!r}]; import runpy; "
    code += "runpy.run_module('vaekit.export.verify', run_name='__main__')"
    result = run_command([sys.executable, "-c", code])
    assert result.returncode == 0, result.stderr
    assert "whole" in result.stdout


def test_the_module_by_itself_says_how_it_is_used() -> None:
    result = run_command([sys.executable, "-m", "vaekit.export.verify"])
    assert_one_line_error(result, "python -m vaekit.export.verify BUNDLE")


@pytest.mark.usefixtures("nothing_is_loaded")
@pytest.mark.injects(15)
def test_a_graph_of_other_weights_is_refused_by_its_hash(bundle: Path) -> None:
    content = bytearray((bundle / "decoder.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (bundle / "decoder.onnx").write_bytes(content)
    with pytest.raises(UserError, match=r"decoder\.onnx: damaged"):
        verify(bundle)


@pytest.mark.usefixtures("nothing_is_loaded")
@pytest.mark.parametrize("location", ["../../secret.bin", "weights.bin"])
@pytest.mark.injects(15)
def test_weights_in_another_file_are_refused(bundle: Path, location: str) -> None:
    def point_outside(model: onnx.ModelProto) -> None:
        weight = model.graph.initializer[0]
        weight.ClearField("raw_data")
        weight.data_location = onnx.TensorProto.EXTERNAL
        entry = weight.external_data.add()
        entry.key, entry.value = "location", location

    rewrite_unloaded(bundle / "encoder.onnx", point_outside)
    with pytest.raises(UserError, match=r"encoder\.onnx: keeps weights in another file") as error:
        verify(bundle)
    assert location in str(error.value)


def inner_graph(model: onnx.ModelProto) -> onnx.TensorProto:
    attribute = model.graph.node[0].attribute.add()
    attribute.name, attribute.type = "body", onnx.AttributeProto.GRAPH
    return attribute.g.initializer.add()


def sparse_constant(model: onnx.ModelProto) -> onnx.TensorProto:
    node = model.graph.node.add()
    node.op_type = "Constant"
    attribute = node.attribute.add()
    attribute.name, attribute.type = "sparse_value", onnx.AttributeProto.SPARSE_TENSOR
    return attribute.sparse_tensor.values


def constant_of_a_function(model: onnx.ModelProto) -> onnx.TensorProto:
    attribute = model.functions.add().node.add().attribute.add()
    attribute.name, attribute.type = "value", onnx.AttributeProto.TENSOR
    return attribute.t


@pytest.mark.usefixtures("nothing_is_loaded")
@pytest.mark.parametrize("hide", [inner_graph, sparse_constant, constant_of_a_function])
@pytest.mark.injects(15)
def test_weights_in_another_file_are_refused_wherever_they_hide(
    bundle: Path, hide: Callable[[onnx.ModelProto], onnx.TensorProto]
) -> None:
    def point_outside(model: onnx.ModelProto) -> None:
        tensor = hide(model)
        tensor.data_location = onnx.TensorProto.EXTERNAL
        entry = tensor.external_data.add()
        entry.key, entry.value = "location", "/etc/hostname"

    rewrite_unloaded(bundle / "svm.onnx", point_outside)
    with pytest.raises(UserError, match=r"svm\.onnx: keeps weights in another file"):
        verify(bundle)


def rewrite_unloaded(path: Path, change: Callable[[onnx.ModelProto], None]) -> None:
    model = onnx.load(path, load_external_data=False)
    change(model)
    path.write_bytes(model.SerializeToString())
    hash_anew(path.parent)


@pytest.mark.usefixtures("nothing_is_loaded")
@pytest.mark.injects(15)
def test_a_graph_of_another_opset_than_the_manifest_says_is_refused(bundle: Path) -> None:
    def age(model: onnx.ModelProto) -> None:
        model.opset_import[0].version = 17

    rewrite(bundle / "svm.onnx", age)
    with pytest.raises(UserError, match=r"svm\.onnx: opset {'': 17}, IR version 10; manifest"):
        verify(bundle)


@pytest.mark.usefixtures("nothing_is_loaded")
@pytest.mark.parametrize(("opset", "ir_version"), [(999, 10), (20, 999)])
@pytest.mark.injects(15)
def test_an_opset_that_this_onnxruntime_cannot_run_is_refused(
    bundle: Path, opset: int, ir_version: int
) -> None:
    for path in bundle.glob("*.onnx"):
        model = onnx.load(path)
        model.opset_import[0].version, model.ir_version = opset, ir_version
        path.write_bytes(model.SerializeToString())
    hash_anew(bundle, opset=opset, ir_version=ir_version)
    with pytest.raises(UserError, match=f"needs opset {opset} and IR version {ir_version}"):
        verify(bundle)


@pytest.mark.usefixtures("nothing_is_loaded")
@pytest.mark.injects(15)
def test_a_graph_with_other_inputs_than_the_manifest_says_is_refused(bundle: Path) -> None:
    def rename(model: onnx.ModelProto) -> None:
        model.graph.input[0].name = "picture"

    rewrite(bundle / "encoder.onnx", rename)
    with pytest.raises(UserError, match=r"encoder\.onnx: from picture to mean"):
        verify(bundle)


@pytest.mark.usefixtures("nothing_is_loaded")
@pytest.mark.injects(15)
def test_a_file_that_is_no_onnx_is_refused(bundle: Path) -> None:
    (bundle / "encoder.onnx").write_bytes(b"\xff" * 100)
    hash_anew(bundle)
    with pytest.raises(UserError, match=r"encoder\.onnx: not an ONNX file"):
        verify(bundle)


@pytest.mark.injects(15)
def test_a_graph_that_is_no_valid_model_is_refused(bundle: Path) -> None:
    def break_it(model: onnx.ModelProto) -> None:
        model.graph.node[0].op_type = "NoSuchOperator"

    rewrite(bundle / "encoder.onnx", break_it)
    with pytest.raises(UserError, match=r"encoder\.onnx: onnxruntime can't run it"):
        verify(bundle)


@pytest.mark.injects(15)
def test_numbers_beyond_their_tolerance_are_named(bundle: Path) -> None:
    cases = read_golden(bundle)
    cases[1].outputs["image"][0] += 0.25
    write_golden(bundle, cases)
    hash_anew(bundle)
    with pytest.raises(UserError, match=r"decoder\.onnx: image is 0\.25 off its golden vector"):
        verify(bundle)


@pytest.mark.injects(15)
def test_a_golden_vector_of_another_shape_is_refused(bundle: Path) -> None:
    cases = read_golden(bundle)
    cases[0].outputs["mean"] = cases[0].outputs["mean"][:, :1]
    write_golden(bundle, cases)
    hash_anew(bundle)
    with pytest.raises(UserError, match=r"encoder\.onnx: mean is float32 .* its golden vector"):
        verify(bundle)


@pytest.mark.parametrize(
    "change",
    [
        lambda cases: [],
        lambda cases: cases[:-1],
        lambda cases: [*cases, cases[0]._replace(graph="other.onnx")],
        lambda cases: [cases[0]._replace(outputs={}, tolerances={}), *cases[1:]],
        lambda cases: [
            cases[0]._replace(outputs={"other": np.zeros(1, np.float32)}, tolerances={"other": 0}),
            *cases[1:],
        ],
    ],
    ids=["none", "a graph has none", "of another graph", "no outputs", "another output"],
)
@pytest.mark.usefixtures("nothing_is_loaded")
@pytest.mark.injects(15)
def test_golden_vectors_that_are_not_of_all_graphs_and_outputs_are_refused(
    bundle: Path, change: Callable[[list[GoldenCase]], list[GoldenCase]]
) -> None:
    write_golden(bundle, change(read_golden(bundle)))
    hash_anew(bundle)
    with pytest.raises(UserError, match=r"golden\.json: of \w+\.onnx: .* says"):
        verify(bundle)


def test_the_largest_excess_is_the_one_that_is_named(bundle: Path) -> None:
    cases = read_golden(bundle)
    cases[0].outputs["mean"][0] += 0.001
    cases[1].outputs["image"][0] += 0.25
    write_golden(bundle, cases)
    hash_anew(bundle)
    with pytest.raises(UserError, match=r"decoder\.onnx: image is 0\.25 off"):
        verify(bundle)


@pytest.mark.injects(15)
def test_a_golden_nan_is_no_match(bundle: Path) -> None:
    value = json.loads((bundle / "golden.json").read_text())
    value["cases"][0]["outputs"]["mean"]["data"][0] = float("nan")
    (bundle / "golden.json").write_text(json.dumps(value))
    hash_anew(bundle)
    with pytest.raises(UserError, match=r"mean is nan off"):
        verify(bundle)
