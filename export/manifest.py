"""What lies in a bundle: its graphs, the manifest that lists every file, and the golden vectors.

Nothing here needs PyTorch or ONNX.
"""

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

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
    hashed = {name: value for name, value in facts.items() if name != "sha256"}
    if facts.get("sha256") != _sha256(hashed) or path.read_text(encoding="utf-8") != _text(facts):
        raise UserError(f"{path}: damaged, its content does not match its sha256; {REMEDY}")
    try:
        return Manifest(
            opset=facts["opset"],
            ir_version=facts["ir_version"],
            graphs={
                name: Signature(
                    *([value["name"] for value in graph[end]] for end in Signature._fields)
                )
                for name, graph in facts["graphs"].items()
            },
            files={name: file["sha256"] for name, file in facts["files"].items()},
            model_sha256=facts["source"]["model_sha256"],
            svm_sha256=facts["source"]["svm_sha256"],
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: not as vaekit writes it ({error!r}); {REMEDY}") from error


def require_intact(bundle: Path, manifest: Manifest) -> None:
    """Raise `UserError` for a file that is missing, changed, or a graph that is not listed."""
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
    extra = sorted(path.name for path in bundle.glob("*.onnx") if path.name not in manifest.graphs)
    if extra:
        raise UserError(
            f"{bundle / extra[0]}: a graph that {MANIFEST} does not list; remove it from the bundle"
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
        return [
            GoldenCase(
                case["graph"],
                {name: _as_array(each) for name, each in case["inputs"].items()},
                {name: _as_array(each) for name, each in case["outputs"].items()},
                {name: each["tolerance"] for name, each in case["outputs"].items()},
            )
            for case in value["cases"]
        ]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path}: not golden vectors as vaekit writes them ({error!r})") from error


def _as_json(array: NDArray[Any]) -> dict[str, Any]:
    flat = array.reshape(-1)
    # The shortest decimals that give back the same float32, not those of its float64.
    data = [float(str(value)) for value in flat] if array.dtype == np.float32 else flat.tolist()
    return {"type": str(array.dtype), "shape": list(array.shape), "data": data}


def _as_array(value: dict[str, Any]) -> NDArray[Any]:
    return np.array(value["data"], dtype=value["type"]).reshape(value["shape"])


def _text(value: dict[str, Any]) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _sha256(manifest: dict[str, Any]) -> str:
    return hashlib.sha256(_text(manifest).encode()).hexdigest()
