"""A bundle's manifest lists every file, and a bit that changed anywhere is found."""

import copy
import hashlib
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundle_helpers import REFORMATTED, facts_of, forge, reformat

from vaekit.errors import UserError
from vaekit.export.manifest import (
    GoldenCase,
    read_golden,
    read_manifest,
    require_intact,
    write_golden,
    write_manifest,
)


def require_whole(bundle: Path) -> None:
    require_intact(bundle, read_manifest(bundle))


def test_the_manifest_lists_every_file_with_its_size_and_hash(bundle: Path) -> None:
    files = facts_of(bundle)["files"]
    assert set(files) == {path.name for path in bundle.iterdir()} - {"manifest.json"}
    for name, recorded in files.items():
        content = (bundle / name).read_bytes()
        assert recorded == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    require_whole(bundle)


@pytest.mark.slow
@pytest.mark.injects(15)
def test_a_flipped_bit_in_any_file_is_found(bundle: Path) -> None:
    generator = np.random.default_rng(0)
    for path in sorted(bundle.iterdir()):
        content = path.read_bytes()
        places = generator.integers(0, len(content), 20)
        for place in (0, len(content) - 1, *places):
            changed = bytearray(content)
            changed[place] ^= 1 << int(generator.integers(8))
            path.write_bytes(changed)
            with pytest.raises(UserError, match=rf"{path.name}|not a bundle"):
                require_whole(bundle)
        path.write_bytes(content)
    require_whole(bundle)


@pytest.mark.parametrize(
    "name", ["extra.onnx", "EXTRA.ONNX", "extra.ort", "sub/encoder.onnx", "deep/er/extra.ORT"]
)
@pytest.mark.injects(15)
def test_a_graph_that_is_not_listed_is_refused(bundle: Path, name: str) -> None:
    (bundle / name).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(bundle / "encoder.onnx", bundle / name)
    with pytest.raises(UserError, match=rf"{name}: a graph that manifest\.json does not list"):
        require_whole(bundle)


def test_other_files_beside_the_bundle_s_are_left_alone(bundle: Path) -> None:
    (bundle / "notes.txt").write_text("mine")
    require_whole(bundle)


@pytest.mark.parametrize(
    "name",
    ["../secret", "/etc/hostname", "sub/file", "a/../../secret", "..", ".", "", "x\0y"],
)
@pytest.mark.injects(15)
def test_a_manifest_that_leads_out_of_the_bundle_is_refused(bundle: Path, name: str) -> None:
    (bundle.parent / "secret").write_text("mine")
    listed = {"bytes": 4, "sha256": hashlib.sha256(b"mine").hexdigest()}
    forge(bundle, files={**facts_of(bundle)["files"], name: listed})
    words = "missing" if name in ("", "x\0y") else "files in the bundle's own folder"
    with pytest.raises(UserError, match=words):
        require_whole(bundle)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"format": "other"}, "not the manifest of a vaekit bundle"),
        ({"format_version": 99}, "format version 99, expected 1, so it is of a newer vaekit"),
        ({"format_version": 0}, "format version 0, expected 1; make the bundle again"),
        ({"graphs": []}, "not as vaekit writes it"),
        ({"source": None}, "not as vaekit writes it"),
        ({"files": {}}, "gives no sha256 of"),
        ({"opset": "20"}, "not as vaekit writes it"),
        ({"opset": True}, "not as vaekit writes it"),
        ({"graphs": {}}, r"lists no graph decoder\.onnx"),
        ({"files": {"golden.json": {"sha256": None}}}, "not as vaekit writes it"),
    ],
    ids=str,
)
@pytest.mark.injects(15)
def test_a_manifest_of_another_kind_is_refused(
    bundle: Path, changes: dict[str, object], words: str
) -> None:
    forge(bundle, **changes)
    with pytest.raises(UserError, match=words):
        require_whole(bundle)


@pytest.mark.parametrize("change", REFORMATTED.values(), ids=REFORMATTED)
def test_a_manifest_that_was_reformatted_is_refused_as_the_clients_refuse_it(
    bundle: Path, change: Callable[[str], str]
) -> None:
    reformat(bundle, change)
    with pytest.raises(UserError, match="damaged"):
        read_manifest(bundle)


def test_golden_vectors_survive_the_trip_through_json_bit_for_bit(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    values = generator.normal(size=(3, 4)).astype(np.float32) * np.float32(10.0) ** np.arange(
        -8, 4, 3
    )
    case = GoldenCase(
        "encoder.onnx",
        {"image": generator.integers(0, 256, (3, 1, 2, 2), dtype=np.uint8)},
        {"mean": values.astype(np.float32), "label": np.array([3, 0, 9])},
        {"mean": 1e-4, "label": 0.0},
    )
    write_golden(tmp_path, [case])
    (read,) = read_golden(tmp_path)
    assert read.graph == case.graph
    assert read.tolerances == case.tolerances
    for wanted, found in ((case.inputs, read.inputs), (case.outputs, read.outputs)):
        assert wanted.keys() == found.keys()
        for name in wanted:
            assert found[name].dtype == wanted[name].dtype
            np.testing.assert_array_equal(found[name], wanted[name])


GOLDEN = {
    "format": "vaekit-golden",
    "format_version": 1,
    "cases": [
        {
            "graph": "encoder.onnx",
            "inputs": {"image": {"type": "uint8", "shape": [1], "data": [3]}},
            "outputs": {"mean": {"type": "float32", "shape": [1], "data": [0.5], "tolerance": 0.1}},
        }
    ],
}


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (["format"], "other"),
        (["format_version"], 99),
        (["cases"], None),
        (["cases", 0, "graph"], ["encoder.onnx"]),
        (["cases", 0, "inputs"], []),
        (["cases", 0, "inputs", "image", "data"], [300]),
        (["cases", 0, "inputs", "image", "data"], [10**400]),
        (["cases", 0, "inputs", "image", "shape"], [-1]),
        (["cases", 0, "inputs", "image", "shape"], [0]),
        (["cases", 0, "inputs", "image", "shape"], []),
        (["cases", 0, "inputs", "image", "type"], "M8[s]"),
        (["cases", 0, "inputs", "image", "type"], "object"),
        (["cases", 0, "outputs", "mean", "tolerance"], "inf"),
        (["cases", 0, "outputs", "mean", "tolerance"], None),
        (["cases", 0, "outputs", "mean", "tolerance"], True),
        (["cases", 0, "outputs", "mean", "tolerance"], -1),
        (["cases", 0, "outputs", "mean", "tolerance"], math.inf),
    ],
    ids=str,
)
@pytest.mark.injects(15)
def test_golden_vectors_of_another_form_are_refused(
    place: list[str | int], value: object, tmp_path: Path
) -> None:
    golden = copy.deepcopy(GOLDEN)
    part: Any = golden
    for key in place[:-1]:
        part = part[key]
    part[place[-1]] = value
    (tmp_path / "golden.json").write_text(json.dumps(golden))
    with pytest.raises(UserError, match="not golden vectors as vaekit writes them"):
        read_golden(tmp_path)
    (tmp_path / "golden.json").write_text(json.dumps(GOLDEN))
    assert len(read_golden(tmp_path)) == 1


@pytest.mark.parametrize(
    "text",
    [
        "[" * 200_000,
        '{"format": "vaekit-bundle", "format_version": 1, "x": NaN}',
        '{"format": "vaekit-bundle", "format_version": 1, "x": "\\ud800"}',  # no UTF-8 has it
        "[]",
        "",
        '{"a',
    ],
    ids=["deep", "nan", "surrogate", "list", "empty", "torn"],
)
@pytest.mark.injects(15)
def test_a_manifest_that_is_no_manifest_is_one_error(text: str, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(UserError, match=r"manifest\.json"):
        read_manifest(tmp_path)


def test_a_manifest_is_read_as_it_was_written(tmp_path: Path) -> None:
    signature = {"inputs": [{"name": "image"}], "outputs": [{"name": "mean"}]}
    source = {"model_sha256": "abc", "svm_sha256": None, "run": "Übung"}
    graphs = {"encoder.onnx": signature, "decoder.onnx": signature}
    for name in ("golden.json", *graphs):
        (tmp_path / name).write_text(name)
    write_manifest(tmp_path, {"opset": 20, "ir_version": 10, "graphs": graphs, "source": source})
    manifest = read_manifest(tmp_path)
    assert manifest[:2] == (20, 10)
    assert (manifest.model_sha256, manifest.svm_sha256) == ("abc", None)
    assert manifest.graphs["encoder.onnx"] == (["image"], ["mean"])
    assert set(manifest.files) == {"golden.json", *graphs}
    require_intact(tmp_path, manifest)
