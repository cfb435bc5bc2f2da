"""What lies in a bundle: its graphs, the manifest that lists every file, and the golden vectors.

Nothing here needs PyTorch or ONNX.
"""

import hashlib
import json
import math
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from vaekit.errors import UserError
from vaekit.files import file_sha256, read_json, write_json, write_text

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
T = TypeVar("T")
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


def write_manifest(bundle: Path, facts: dict[str, Any]) -> None:
    """Write `facts` with the size and sha256 of every file in the folder, and of itself."""
    files = {
        path.name: {"bytes": path.stat().st_size, "sha256": file_sha256(path)}
        for path in sorted(bundle.iterdir())
    }
    manifest = {"format": FORMAT, "format_version": FORMAT_VERSION, **facts, "files": files}
    write_json(bundle / MANIFEST, {**manifest, "sha256": _sha256(manifest)})


def read_manifest(bundle: Path) -> Manifest:
    """The manifest of a bundle. Raises `UserError` where there is none, or it is damaged."""
    path = bundle / MANIFEST
    if not path.is_file():
        raise UserError(
            f"{bundle}: not a bundle (no {MANIFEST}); give the folder that `vaekit export` wrote, "
            f"as in runs/mnist/onnx"
        )
    facts = read_json(path, REMEDY)
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        raise UserError(f"{path}: not the manifest of a vaekit bundle; {REMEDY}")
    if facts.get("format_version") != FORMAT_VERSION:
        raise UserError(
            f"{path}: format version {facts.get('format_version')}, expected {FORMAT_VERSION}; "
            f"{REMEDY}"
        )
    if not _is_as_hashed(path, facts):
        raise UserError(f"{path}: damaged, its content does not match its sha256; {REMEDY}")
    try:
        return Manifest(
            opset=_typed(facts["opset"], int),
            ir_version=_typed(facts["ir_version"], int),
            graphs={
                name: Signature(_names(graph["inputs"]), _names(graph["outputs"]))
                for name, graph in facts["graphs"].items()
            },
            files={name: _typed(file["sha256"], str) for name, file in facts["files"].items()},
            model_sha256=facts["source"]["model_sha256"],
            svm_sha256=facts["source"]["svm_sha256"],
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: not as vaekit writes it ({error!r}); {REMEDY}") from error


def require_intact(bundle: Path, manifest: Manifest) -> None:
    """Raise `UserError` for a file that is missing, changed, or a graph that is not listed."""
    absent = sorted({ENCODER, DECODER} - set(manifest.graphs))
    if absent:
        raise UserError(f"{bundle / MANIFEST}: lists no graph {absent[0]}; {REMEDY}")
    unhashed = sorted({*manifest.graphs, GOLDEN} - set(manifest.files))
    if unhashed:
        raise UserError(f"{bundle / MANIFEST}: gives no sha256 of {unhashed[0]}; {REMEDY}")
    for name, sha256 in manifest.files.items():
        path = bundle / name
        if Path(name).name != name or name == "..":
            raise UserError(
                f"{bundle / MANIFEST}: lists {name!r}, expected names of files in the bundle's own "
                f"folder; don't use this bundle"
            )
        if not path.is_file():
            raise UserError(f"{path}: missing; copy the whole folder again")
        if file_sha256(path) != sha256:
            raise UserError(
                f"{path}: damaged, its content does not match its sha256 in {MANIFEST}; "
                f"copy the folder again"
            )
    listed = {bundle / name for name in manifest.graphs}
    for path in sorted(bundle.rglob("*")):
        if path.suffix.lower() in GRAPH_SUFFIXES and path not in listed:
            raise UserError(
                f"{path}: a graph that {MANIFEST} does not list; remove it from the bundle"
            )


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
    value = read_json(path, REMEDY)
    try:
        if (value["format"], value["format_version"]) != (GOLDEN_FORMAT, FORMAT_VERSION):
            raise ValueError(f"{value['format']} version {value['format_version']}")
        return [
            GoldenCase(
                _typed(case["graph"], str),
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
    shape = [_typed(length, int) for length in value["shape"]]
    if min(shape) < 1:
        raise ValueError(f"shape {shape}, expected lengths of at least 1")
    return np.array(value["data"], dtype=value["type"]).reshape(shape)


def _tolerance(value: Any) -> float:
    tolerance = float(value) if type(value) in (int, float) else math.nan
    if not 0 <= tolerance < math.inf:
        raise ValueError(f"tolerance {value!r}, expected a finite number of at least 0")
    return tolerance


def _names(values: Any) -> list[str]:
    return [_typed(value["name"], str) for value in values]


def _typed(value: Any, kind: type[T]) -> T:
    if type(value) is not kind:
        raise TypeError(f"{value!r} is no {kind.__name__}")
    return value


def _is_as_hashed(path: Path, facts: dict[str, Any]) -> bool:
    """Whether the file is, to the letter, what was written."""
    rest = {name: value for name, value in facts.items() if name != "sha256"}
    try:
        return facts.get("sha256") == _sha256(rest) and path.read_bytes() == _text(facts).encode()
    except ValueError:  # NaN, or characters that UTF-8 has not: JSON in Python, not ours
        return False


def _text(value: dict[str, Any]) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _sha256(manifest: dict[str, Any]) -> str:
    return hashlib.sha256(_text(manifest).encode()).hexdigest()
