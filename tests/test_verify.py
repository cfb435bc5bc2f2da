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
from vaekit.export.manifest import read_golden, write_golden
from vaekit.export.verify import verify
from vaekit.files import file_sha256


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
def test_a_graph_of_other_weights_is_refused_by_its_hash(bundle: Path) -> None:
    content = bytearray((bundle / "decoder.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (bundle / "decoder.onnx").write_bytes(content)
    with pytest.raises(UserError, match=r"decoder\.onnx: damaged"):
        verify(bundle)


@pytest.mark.usefixtures("nothing_is_loaded")
@pytest.mark.parametrize("location", ["../../secret.bin", "weights.bin"])
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


@pytest.mark.usefixtures("nothing_is_loaded")
def test_weights_of_an_inner_graph_in_another_file_are_refused(bundle: Path) -> None:
    def hide_inside(model: onnx.ModelProto) -> None:
        inner = onnx.GraphProto()
        weight = inner.initializer.add()
        weight.data_location = onnx.TensorProto.EXTERNAL
        entry = weight.external_data.add()
        entry.key, entry.value = "location", "/etc/hostname"
        attribute = model.graph.node[0].attribute.add()
        attribute.name, attribute.type = "body", onnx.AttributeProto.GRAPH
        attribute.g.CopyFrom(inner)

    rewrite_unloaded(bundle / "svm.onnx", hide_inside)
    with pytest.raises(UserError, match=r"svm\.onnx: keeps weights in another file"):
        verify(bundle)


def rewrite_unloaded(path: Path, change: Callable[[onnx.ModelProto], None]) -> None:
    model = onnx.load(path, load_external_data=False)
    change(model)
    path.write_bytes(model.SerializeToString())
    hash_anew(path.parent)


@pytest.mark.usefixtures("nothing_is_loaded")
def test_a_graph_of_another_opset_than_the_manifest_says_is_refused(bundle: Path) -> None:
    def age(model: onnx.ModelProto) -> None:
        model.opset_import[0].version = 17

    rewrite(bundle / "svm.onnx", age)
    with pytest.raises(UserError, match=r"svm\.onnx: opset {'': 17}, IR version 10; manifest"):
        verify(bundle)


@pytest.mark.usefixtures("nothing_is_loaded")
@pytest.mark.parametrize(("opset", "ir_version"), [(999, 10), (20, 999)])
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
def test_a_graph_with_other_inputs_than_the_manifest_says_is_refused(bundle: Path) -> None:
    def rename(model: onnx.ModelProto) -> None:
        model.graph.input[0].name = "picture"

    rewrite(bundle / "encoder.onnx", rename)
    with pytest.raises(UserError, match=r"encoder\.onnx: its Signature\(inputs=\['picture'\]"):
        verify(bundle)


@pytest.mark.usefixtures("nothing_is_loaded")
def test_a_file_that_is_no_onnx_is_refused(bundle: Path) -> None:
    (bundle / "encoder.onnx").write_bytes(b"\xff" * 100)
    hash_anew(bundle)
    with pytest.raises(UserError, match=r"encoder\.onnx: not an ONNX file"):
        verify(bundle)


def test_a_graph_that_is_no_valid_model_is_refused(bundle: Path) -> None:
    def break_it(model: onnx.ModelProto) -> None:
        model.graph.node[0].op_type = "NoSuchOperator"

    rewrite(bundle / "encoder.onnx", break_it)
    with pytest.raises(UserError, match=r"encoder\.onnx: onnxruntime can't run it"):
        verify(bundle)


def test_numbers_beyond_their_tolerance_are_named(bundle: Path) -> None:
    cases = read_golden(bundle)
    cases[1].outputs["image"][0] += 0.25
    write_golden(bundle, cases)
    hash_anew(bundle)
    with pytest.raises(UserError, match=r"decoder\.onnx: image is 0\.25 off its golden vector"):
        verify(bundle)


def test_a_golden_vector_of_another_shape_is_refused(bundle: Path) -> None:
    cases = read_golden(bundle)
    cases[0].outputs["mean"] = cases[0].outputs["mean"][:, :1]
    write_golden(bundle, cases)
    hash_anew(bundle)
    with pytest.raises(UserError, match=r"encoder\.onnx: mean is float32 .* its golden vector"):
        verify(bundle)


def test_golden_vectors_of_graphs_or_outputs_that_are_not_there_are_refused(bundle: Path) -> None:
    cases = read_golden(bundle)
    write_golden(bundle, [cases[0]._replace(graph="other.onnx")])
    hash_anew(bundle)
    with pytest.raises(UserError, match=r"golden\.json: of other\.onnx"):
        verify(bundle)
    wrong = cases[0]._replace(outputs={"other": np.zeros(1)}, tolerances={"other": 0.0})
    write_golden(bundle, [wrong])
    hash_anew(bundle)
    with pytest.raises(UserError, match=r"golden\.json: of .*other"):
        verify(bundle)


def test_a_golden_nan_is_no_match(bundle: Path) -> None:
    value = json.loads((bundle / "golden.json").read_text())
    value["cases"][0]["outputs"]["mean"]["data"][0] = float("nan")
    (bundle / "golden.json").write_text(json.dumps(value))
    hash_anew(bundle)
    with pytest.raises(UserError, match=r"mean is nan off"):
        verify(bundle)
