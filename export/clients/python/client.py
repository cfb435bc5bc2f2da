"""Runs a vaekit bundle with onnxruntime and numpy alone: an example to copy.

`python client.py BUNDLE` checks the bundle's files and replays its golden vectors. It exits with 1
where an output is off, and with 2 where the bundle is not whole or onnxruntime can't run it.
"""

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

# What onnxruntime raises for a graph that it can't run; they share no base of their own.
UNRUNNABLE = (
    ort_errors.Fail,
    ort_errors.InvalidArgument,
    ort_errors.InvalidGraph,
    ort_errors.InvalidProtobuf,
    ort_errors.NoSuchFile,
    ort_errors.NotImplemented,
    ort_errors.RuntimeException,
)
# What JSON leads to that is not built as vaekit builds it.
MALFORMED = (AttributeError, KeyError, OverflowError, RecursionError, TypeError)


def classify(bundle: Path, images: NDArray[np.uint8]) -> list[str | None]:
    """The class of each image of a batch [N, C, H, W] that was prepared as manifest.json says.

    This is all that an application needs; one that asks often keeps the session.
    """
    class_names = json.loads((bundle / "manifest.json").read_text("utf-8"))["class_names"]
    session = onnxruntime.InferenceSession(bundle / "classifier.onnx")
    (labels,) = session.run(["label"], {"image": images})
    return [class_names[label] if label >= 0 else None for label in labels]  # -1: not finite


def check_files(bundle: Path) -> dict[str, Any]:
    """The manifest. Raises ValueError where a file is not the one that it describes."""
    content = (bundle / "manifest.json").read_bytes()
    try:
        manifest: dict[str, Any] = json.loads(content.decode("utf-8"))
    except ValueError as error:
        raise ValueError(f"manifest.json is damaged: {error}") from error
    if (manifest.get("format"), manifest.get("format_version")) != ("vaekit-bundle", 1):
        raise ValueError("manifest.json is not that of a vaekit bundle of version 1")
    sha256 = manifest.pop("sha256", None)
    require_sha256("manifest.json", as_written(manifest), sha256)
    if content != as_written({**manifest, "sha256": sha256}):
        raise ValueError("manifest.json is damaged: it is formatted otherwise than vaekit does it")
    if unhashed := {*manifest["graphs"], "golden.json"} - {*manifest["files"]}:
        raise ValueError(f"manifest.json gives no sha256 of {', '.join(unhashed)}")
    for name, expected in manifest["files"].items():
        if Path(name).name != name or name == "..":
            raise ValueError(f"manifest.json lists {name!r}, which is no file's name")
        require_sha256(name, (bundle / name).read_bytes(), expected["sha256"])
    return manifest


def as_written(manifest: dict[str, Any]) -> bytes:
    """Give the text that vaekit writes of it, with its sha256 last."""
    return (json.dumps(manifest, indent=2, ensure_ascii=False) + "\n").encode()


def require_sha256(name: str, content: bytes, expected: str | None) -> None:
    """Raise ValueError where the content is not what it was when the manifest was written."""
    if (found := hashlib.sha256(content).hexdigest()) != expected:
        raise ValueError(f"{name} is damaged: its sha256 is {found}, expected {expected}")


def replay_golden(bundle: Path, manifest: dict[str, Any]) -> list[str]:
    """Print each output's largest difference from golden.json; return those that are off."""
    cases = json.loads((bundle / "golden.json").read_text("utf-8"))["cases"]
    given = {f"{case['graph']} {output}" for case in cases for output in case["outputs"]}
    listed = {
        f"{graph} {output['name']}"
        for graph, signature in manifest["graphs"].items()
        for output in signature["outputs"]
    }
    if given != listed or not given:
        amiss = ", ".join(sorted(given ^ listed)) or "both have none"
        raise ValueError(
            f"golden.json does not have the outputs that manifest.json lists ({amiss})"
        )
    off = []
    for case in cases:
        graph = case["graph"]
        session = onnxruntime.InferenceSession(bundle / graph)
        inputs = {name: array(value) for name, value in case["inputs"].items()}
        computed = session.run(list(case["outputs"]), inputs)
        for (output, value), found in zip(case["outputs"].items(), computed, strict=True):
            expected, tolerance = array(value), value["tolerance"]
            form, expected_form = ((each.dtype, each.shape) for each in (found, expected))
            if form != expected_form:
                raise ValueError(f"{graph}: {output} is {form}, golden.json says {expected_form}")
            difference = np.abs(found.astype(np.float64) - expected).max(initial=0)
            print(f"{graph:16} {output:13} {difference:8.1e}  tolerance {tolerance}")
            if not difference <= tolerance:  # NaN too is off
                off.append(f"{graph}: {output} is off by {difference:.3g}, allowed {tolerance}")
    return off


def array(value: dict[str, Any]) -> NDArray[Any]:
    """Build the array that a {"type", "shape", "data"} of golden.json stands for."""
    return np.array(value["data"], value["type"]).reshape(value["shape"])


def main() -> int:
    if len(sys.argv) != 2:
        print("usage: python client.py BUNDLE", file=sys.stderr)
        return 2
    bundle = Path(sys.argv[1])
    onnxruntime.set_default_logger_severity(4)  # what is wrong is said once, below
    try:
        off = replay_golden(bundle, check_files(bundle))
    except (OSError, ValueError) as error:
        return refuse(f"{bundle}: {error}; give a whole bundle, as vaekit exports it")
    except MALFORMED as error:
        return refuse(f"{bundle}: its JSON is not as vaekit writes it ({error!r}); export it again")
    except UNRUNNABLE as error:
        version = onnxruntime.__version__
        return refuse(f"{bundle}: onnxruntime {version} can't run it ({error}); try a newer one")
    if off:
        print("\n".join(off), file=sys.stderr)
        return 1
    print("all outputs within tolerance")
    return 0


def refuse(reason: str) -> int:
    """Say in one line why the bundle can't be replayed; return the exit code."""
    print(" ".join(reason.split()), file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
