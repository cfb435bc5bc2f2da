"""`vaekit export --check`: what it refuses, before anything is loaded, and what it needs."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from bundle_helpers import change_graph, hash_anew
from conftest import assert_one_line_error, run_command
from damage_helpers import data_flipped

from vaekit.cli import main
from vaekit.errors import UserError
from vaekit.export import verify as room
from vaekit.export.manifest import GoldenCase, read_golden, write_golden
from vaekit.export.verify import verify


@pytest.fixture
def nothing_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: object) -> None:
        raise AssertionError("a graph was loaded")

    monkeypatch.setattr(room, "_replay", load)


@pytest.mark.parametrize(
    ("kind", "folder"),
    [("exported_run", "onnx"), pytest.param("rounded_run", "onnx-fp16", marks=pytest.mark.slow)],
)
def test_a_bundle_as_exported_passes(
    kind: str, folder: str, request: pytest.FixtureRequest
) -> None:
    replayed = verify(request.getfixturevalue(kind) / folder)
    outputs = {(each.graph, each.output) for each in replayed}
    assert ("encoder.onnx", "mean") in outputs
    assert ("classifier.onnx", "label") in outputs
    assert len(outputs) == 8
    assert all(each.difference <= each.tolerance for each in replayed)


def test_the_command_line_checks_a_bundle(
    exported_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["export", "--check", str(exported_run / "onnx")])
    assert "whole, and within tolerance" in capsys.readouterr().out


def test_the_check_needs_no_torch(exported_run: Path) -> None:
    blocked = "import sys; sys.modules.update(dict.fromkeys(['torch', 'sklearn', 'jsonargparse']))"
    code = f"{blocked}; sys.argv[1:] = [{str(exported_run / 'onnx')!r}]; import runpy; "
    code += "runpy.run_module('vaekit.export.verify', run_name='__main__')"
    result = run_command([sys.executable, "-c", code])
    assert result.returncode == 0, result.stderr
    assert "whole" in result.stdout


@pytest.mark.slow
def test_the_module_by_itself_says_how_it_is_used() -> None:
    result = run_command([sys.executable, "-m", "vaekit.export.verify"])
    assert_one_line_error(result, "python -m vaekit.export.verify BUNDLE")


@pytest.mark.usefixtures("nothing_is_loaded")
@pytest.mark.injects(15)
def test_a_graph_of_other_weights_is_refused_by_its_hash(bundle: Path) -> None:
    data_flipped(bundle / "decoder.onnx")
    with pytest.raises(UserError, match=r"decoder\.onnx: damaged"):
        verify(bundle)


@pytest.mark.usefixtures("nothing_is_loaded")
@pytest.mark.injects(15)
def test_a_file_that_is_no_onnx_is_refused(bundle: Path) -> None:
    (bundle / "encoder.onnx").write_bytes(b"\xff" * 100)
    hash_anew(bundle)
    with pytest.raises(UserError, match=r"encoder\.onnx: not an ONNX file"):
        verify(bundle)


def another_opset(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 17


def another_input(model: onnx.ModelProto) -> None:
    model.graph.input[0].name = "picture"


def keep_elsewhere(tensor: onnx.TensorProto, location: str) -> None:
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", location


def weights_outside(model: onnx.ModelProto) -> None:
    keep_elsewhere(model.graph.initializer[0], "../../secret.bin")


def weights_beside(model: onnx.ModelProto) -> None:
    keep_elsewhere(model.graph.initializer[0], "weights.bin")


def weights_of_an_inner_graph(model: onnx.ModelProto) -> None:
    attribute = model.graph.node[0].attribute.add()
    attribute.name, attribute.type = "body", onnx.AttributeProto.GRAPH
    keep_elsewhere(attribute.g.initializer.add(), "/etc/hostname")


def a_sparse_constant(model: onnx.ModelProto) -> None:
    node = model.graph.node.add()
    node.op_type = "Constant"
    attribute = node.attribute.add()
    attribute.name, attribute.type = "sparse_value", onnx.AttributeProto.SPARSE_TENSOR
    keep_elsewhere(attribute.sparse_tensor.values, "/etc/hostname")


def a_constant_of_a_function(model: onnx.ModelProto) -> None:
    attribute = model.functions.add().node.add().attribute.add()
    attribute.name, attribute.type = "value", onnx.AttributeProto.TENSOR
    keep_elsewhere(attribute.t, "/etc/hostname")


@pytest.mark.usefixtures("nothing_is_loaded")
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (another_opset, "opset {'': 17}, IR version 8; manifest"),
        (another_input, "from picture to mean"),
        (weights_outside, r"keeps weights in another file \('../../secret.bin'\)"),
        (weights_beside, r"keeps weights in another file \('weights.bin'\)"),
        (weights_of_an_inner_graph, "keeps weights in another file"),
        (a_sparse_constant, "keeps weights in another file"),
        (a_constant_of_a_function, "keeps weights in another file"),
    ],
)
@pytest.mark.injects(15)
def test_a_graph_that_is_not_as_the_manifest_says_or_not_whole_by_itself_is_refused(
    change: Callable[[onnx.ModelProto], None], words: str, bundle: Path
) -> None:
    change_graph(bundle / "encoder.onnx", change)
    with pytest.raises(UserError, match=rf"encoder\.onnx: {words}"):
        verify(bundle)


@pytest.mark.usefixtures("nothing_is_loaded")
@pytest.mark.parametrize(("opset", "ir_version"), [(999, 8), (15, 999)])
@pytest.mark.injects(15)
def test_an_opset_that_this_onnxruntime_cannot_run_is_refused(
    bundle: Path, opset: int, ir_version: int
) -> None:
    def age(model: onnx.ModelProto) -> None:
        model.opset_import[0].version, model.ir_version = opset, ir_version

    for path in bundle.glob("*.onnx"):
        change_graph(path, age)
    hash_anew(bundle, opset=opset, ir_version=ir_version)
    with pytest.raises(UserError, match=f"needs opset {opset} and IR version {ir_version}"):
        verify(bundle)


def an_unknown_operator(model: onnx.ModelProto) -> None:
    model.graph.node[0].op_type = "NoSuchOperator"


def an_index_out_of_bounds(model: onnx.ModelProto) -> None:
    """Valid as a graph: only onnxruntime finds out, and while it runs."""
    output = model.graph.output[0].name
    for node in model.graph.node:
        node.output[:] = ["inner" if name == output else name for name in node.output]
    index = onnx.helper.make_tensor("index", onnx.TensorProto.INT64, [1], [10**6])
    model.graph.initializer.append(index)
    model.graph.node.append(onnx.helper.make_node("Gather", ["inner", "index"], [output], axis=1))


@pytest.mark.parametrize("change", [an_unknown_operator, an_index_out_of_bounds])
@pytest.mark.injects(15)
def test_a_graph_that_cannot_run_is_refused(
    change: Callable[[onnx.ModelProto], None], bundle: Path
) -> None:
    change_graph(bundle / "decoder.onnx", change)
    with pytest.raises(UserError, match=r"decoder\.onnx: onnxruntime can't run it"):
        verify(bundle)


Change = Callable[[list[GoldenCase]], list[GoldenCase]]


def verify_with(change: Change, bundle: Path) -> None:
    write_golden(bundle, change(read_golden(bundle)))
    hash_anew(bundle)
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
    bundle: Path, change: Change
) -> None:
    with pytest.raises(UserError, match=r"golden\.json: of \w+\.onnx: .* says"):
        verify_with(change, bundle)


@pytest.mark.injects(15)
def test_a_golden_vector_of_another_shape_is_refused(bundle: Path) -> None:
    def shorten(cases: list[GoldenCase]) -> list[GoldenCase]:
        cases[0].outputs["mean"] = cases[0].outputs["mean"][:, :1]
        return cases

    with pytest.raises(UserError, match=r"encoder\.onnx: mean is float32 .* its golden vector"):
        verify_with(shorten, bundle)


@pytest.mark.injects(15)
def test_of_numbers_beyond_their_tolerance_the_farthest_is_named(bundle: Path) -> None:
    def move(cases: list[GoldenCase]) -> list[GoldenCase]:
        cases[0].outputs["mean"][0] += 0.001
        cases[1].outputs["image"][0] += 0.25
        return cases

    with pytest.raises(UserError, match=r"decoder\.onnx: image is 0\.25 off its golden vector"):
        verify_with(move, bundle)


@pytest.mark.injects(15)
def test_a_golden_nan_is_no_match(bundle: Path) -> None:
    value = json.loads((bundle / "golden.json").read_text())
    value["cases"][0]["outputs"]["mean"]["data"][0] = float("nan")
    (bundle / "golden.json").write_text(json.dumps(value))
    hash_anew(bundle)
    with pytest.raises(UserError, match=r"mean is nan off"):
        verify(bundle)
