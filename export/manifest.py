"""What lies in a bundle: its graphs, the manifest that lists every file, and the golden vectors.

Nothing here needs PyTorch or ONNX.
"""

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vaekit.errors import UserError
from vaekit.storage.damage import Damaged, as_written, damage_told, require_version, typed
from vaekit.storage.files import file_sha256, read_json, write_text
from vaekit.storage.sealed import require_seal, write_sealed

FORMAT = "vaekit-bundle"
GOLDEN_FORMAT = "vaekit-golden"
FORMAT_VERSION = 1

ENCODER = "encoder.onnx"
DECODER = "decoder.onnx"
SVM = "svm.onnx"
CLASSIFIER = "classifier.onnx"
GOLDEN = "golden.json"
MANIFEST = "manifest.json"

Arrays = dict[str, NDArray[Any]]
TYPES = ("uint8", "int64", "float32")  # of golden vectors
GRAPH_SUFFIXES = (".onnx", ".ort")
REMEDY = "make the bundle again with `vaekit export RUN`"


class Signature(NamedTuple):
    """The names of what a graph takes and gives, in order."""

    inputs: list[str]
    outputs: list[str]


class Manifest(NamedTuple):
    """What a reader of bundles goes by; the file holds more, for people and applications."""

    opset: int
    ir_version: int
    graphs: dict[str, Signature]
    files: dict[str, str]  # the sha256 of each
    model_sha256: str  # of the weights it was made from
    svm_sha256: str | None  # of the SVM, where it has one


class GoldenCase(NamedTuple):
    """Inputs of a graph, the outputs that they must give, and how far off each may be."""

    graph: str
    inputs: Arrays
    outputs: Arrays
    tolerances: dict[str, float]  # largest absolute difference


def write_manifest(bundle: Path, metadata: dict[str, Any]) -> None:
    """Write `metadata` with the size and sha256 of every file in the folder, and of itself."""
    files = {
        path.name: {"bytes": path.stat().st_size, "sha256": file_sha256(path)}
        for path in sorted(bundle.iterdir())
    }
    manifest = {"format": FORMAT, "format_version": FORMAT_VERSION, **metadata, "files": files}
    write_sealed(bundle / MANIFEST, manifest)


def read_manifest(bundle: Path) -> Manifest:
    """The manifest of a bundle. Raises `UserError` where there is none, or it is damaged."""
    path = bundle / MANIFEST
    if not path.is_file():
        raise UserError(
            f"{bundle}: not a bundle (no {MANIFEST}); give the folder that `vaekit export` wrote, "
            f"as in runs/mnist/onnx"
        )
    with damage_told(path, REMEDY):
        return read_manifest_file(path)


def read_manifest_file(path: Path) -> Manifest:
    """A manifest.json. Raises `Damaged` where it is something else."""
    metadata = read_json(path)
    if not isinstance(metadata, dict) or metadata.get("format") != FORMAT:
        raise Damaged("not the manifest of a vaekit bundle")
    require_version(metadata.get("format_version"), FORMAT_VERSION)
    require_seal(path, metadata)
    with as_written():
        source = typed(metadata["source"], dict)
        return Manifest(
            opset=typed(metadata["opset"], int),
            ir_version=typed(metadata["ir_version"], int),
            graphs={
                name: Signature(_names(graph["inputs"]), _names(graph["outputs"]))
                for name, graph in metadata["graphs"].items()
            },
            files={name: typed(file["sha256"], str) for name, file in metadata["files"].items()},
            model_sha256=typed(source["model_sha256"], str),
            svm_sha256=None if source["svm_sha256"] is None else typed(source["svm_sha256"], str),
        )


def require_intact(bundle: Path, manifest: Manifest) -> None:
    """Raise `UserError` for a file that is missing, changed, or a graph that is not listed."""
    require_complete(bundle, manifest)
    for name in manifest.files:
        require_file(bundle, manifest, name)


def require_complete(bundle: Path, manifest: Manifest) -> None:
    """Raise `UserError` where the manifest lists too little, or less than the folder holds."""
    absent = sorted({ENCODER, DECODER} - set(manifest.graphs))
    if absent:
        raise UserError(f"{bundle / MANIFEST}: lists no graph {absent[0]}; {REMEDY}")
    unhashed = sorted({*manifest.graphs, GOLDEN} - set(manifest.files))
    if unhashed:
        raise UserError(f"{bundle / MANIFEST}: gives no sha256 of {unhashed[0]}; {REMEDY}")
    listed = {bundle / name for name in manifest.graphs}
    for path in sorted(bundle.rglob("*")):
        if path.suffix.lower() in GRAPH_SUFFIXES and path not in listed:
            raise UserError(
                f"{path}: a graph that {MANIFEST} does not list; remove it from the bundle"
            )


def require_file(bundle: Path, manifest: Manifest, name: str) -> None:
    """Raise `UserError` where a file that the manifest lists is missing or changed."""
    path = bundle / name
    if not is_own_name(name):
        raise UserError(
            f"{bundle / MANIFEST}: lists {name!r}, expected names of files in the bundle's own "
            f"folder; don't use this bundle"
        )
    if not path.is_file():
        raise UserError(f"{path}: missing; copy the whole folder again")
    with damage_told(path, "copy the folder again"):
        require_sha256(path, manifest.files[name])


def is_own_name(name: str) -> bool:
    """Whether it is the name of a file in the bundle's own folder."""
    return Path(name).name == name and name != ".."


def require_sha256(path: Path, sha256: str) -> None:
    """Raise `Damaged` where a file is not the one that the manifest lists."""
    if file_sha256(path) != sha256:
        raise Damaged(f"damaged, its content does not match its sha256 in {MANIFEST}")


def write_golden(bundle: Path, cases: list[GoldenCase]) -> None:
    """Write golden vectors that any application can replay: flat arrays with their shapes."""
    value = {
        "format": GOLDEN_FORMAT,
        "format_version": FORMAT_VERSION,
        "cases": [
            {
                "graph": case.graph,
                "inputs": {name: _as_json(array) for name, array in case.inputs.items()},
                "outputs": {
                    name: {**_as_json(array), "tolerance": case.tolerances[name]}
                    for name, array in case.outputs.items()
                },
            }
            for case in cases
        ],
    }
    write_text(bundle / GOLDEN, json.dumps(value, separators=(",", ":"), allow_nan=False) + "\n")


def read_golden(bundle: Path) -> list[GoldenCase]:
    """What `write_golden` wrote. Raises `UserError` where it is something else."""
    path = bundle / GOLDEN
    with damage_told(path, REMEDY):
        value = read_json(path)
    try:
        if (value["format"], value["format_version"]) != (GOLDEN_FORMAT, FORMAT_VERSION):
            raise ValueError(f"{value['format']} version {value['format_version']}")
        return [
            GoldenCase(
                typed(case["graph"], str),
                {name: _as_array(each) for name, each in case["inputs"].items()},
                {name: _as_array(each) for name, each in case["outputs"].items()},
                {name: _tolerance(each["tolerance"]) for name, each in case["outputs"].items()},
            )
            for case in value["cases"]
        ]
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise UserError(
            f"{path}: not golden vectors as vaekit writes them ({error!r}); {REMEDY}"
        ) from error


def excess(difference: float, tolerance: float) -> float:
    """How many tolerances a difference is where it is beyond one, else 0; NaN is the largest."""
    if difference <= tolerance:
        return 0.0
    return difference / tolerance if tolerance and not math.isnan(difference) else math.inf


def _as_json(array: NDArray[Any]) -> dict[str, Any]:
    flat = array.reshape(-1)
    # The shortest decimals that give back the same float32, not those of its float64.
    data = [float(str(value)) for value in flat] if array.dtype == np.float32 else flat.tolist()
    return {"type": str(array.dtype), "shape": list(array.shape), "data": data}


def _as_array(value: dict[str, Any]) -> NDArray[Any]:
    if value["type"] not in TYPES:
        raise ValueError(f"type {value['type']!r}, expected one of {TYPES}")
    shape = [typed(length, int) for length in value["shape"]]
    if min(shape) < 1:
        raise ValueError(f"shape {shape}, expected lengths of at least 1")
    return np.array(value["data"], dtype=value["type"]).reshape(shape)


def _tolerance(value: Any) -> float:
    tolerance = float(value) if type(value) in (int, float) else math.nan
    if not 0 <= tolerance < math.inf:
        raise ValueError(f"tolerance {value!r}, expected a finite number of at least 0")
    return tolerance


def _names(values: Any) -> list[str]:
    return [typed(value["name"], str) for value in values]
