"""Whether a bundle is whole and gives the right numbers here: `vaekit export --check`.

Needs onnx, onnxruntime and numpy, and nothing else: `python -m vaekit.export.verify BUNDLE`.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxruntime
from google.protobuf.message import DecodeError, Message
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from vaekit.errors import UserError, user_errors_in_one_line
from vaekit.export.manifest import (
    GOLDEN,
    MANIFEST,
    GoldenCase,
    Manifest,
    Signature,
    excess,
    read_golden,
    read_manifest,
    require_intact,
)

# What onnxruntime raises for a model that it can't run; they share no base of their own.
UNRUNNABLE = (
    ort_errors.Fail,
    ort_errors.InvalidArgument,
    ort_errors.InvalidGraph,
    ort_errors.InvalidProtobuf,
    ort_errors.NotImplemented,
)


class Replayed(NamedTuple):
    """How far an output was from its golden vector."""

    graph: str
    output: str
    difference: float  # largest absolute one; NaN where the output has a NaN
    tolerance: float


def verify(bundle: Path) -> list[Replayed]:
    """Check a bundle, and say how far it is from its golden vectors.

    Hashes, the list of graphs, opset and external data are checked before any graph is loaded.
    Raises `UserError` at the first thing that is wrong.
    """
    manifest = read_manifest(bundle)
    require_intact(bundle, manifest)
    for name, signature in manifest.graphs.items():
        _require_sound(bundle / name, signature, manifest)
    _require_runnable(bundle, manifest)
    cases = read_golden(bundle)
    _require_complete(bundle, cases, manifest)
    replayed = [each for case in cases for each in _replay(bundle, case)]
    worst = max(replayed, key=lambda each: excess(each.difference, each.tolerance))
    if not worst.difference <= worst.tolerance:
        raise UserError(
            f"{bundle / worst.graph}: {worst.output} is {worst.difference:.3g} off its golden "
            f"vector, the tolerance is {worst.tolerance:g}; onnxruntime "
            f"{onnxruntime.__version__} computes something else here: report it"
        )
    return replayed


def check(bundle: Path) -> None:
    """`verify`, told to the person at the keyboard."""
    for each in verify(bundle):
        print(
            f"{each.graph:<16} {each.output:<13} off by {each.difference:.1e} "
            f"(tolerance {each.tolerance:.0e})"
        )
    print(f"{bundle}: whole, and within tolerance on onnxruntime {onnxruntime.__version__}")


def _require_sound(path: Path, signature: Signature, manifest: Manifest) -> None:
    """One graph, parsed but not loaded: valid, self-contained, of the manifest's opset."""
    try:
        model = onnx.load(path, load_external_data=False)
    except DecodeError as error:
        raise UserError(f"{path}: not an ONNX file ({error}); don't use this bundle") from error
    for tensor in _tensors(model):
        if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
            places = [entry.value for entry in tensor.external_data if entry.key == "location"]
            raise UserError(
                f"{path}: keeps weights in another file ({', '.join(places)!r}); the graphs of a "
                f"bundle hold theirs inside: don't use this bundle"
            )
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    if opsets != {"": manifest.opset} or model.ir_version != manifest.ir_version:
        raise UserError(
            f"{path}: opset {opsets}, IR version {model.ir_version}; {MANIFEST} says opset "
            f"{manifest.opset}, IR version {manifest.ir_version}: don't use this bundle"
        )
    found = Signature(_names(model.graph.input), _names(model.graph.output))
    if found != signature:
        raise UserError(
            f"{path}: from {_said(found)}, {MANIFEST} says {_said(signature)}: don't use it"
        )


def _require_runnable(bundle: Path, manifest: Manifest) -> None:
    """Try the opset and the IR version on a graph of one node."""
    probe = onnx.parser.parse_model(
        f'<ir_version: {manifest.ir_version}, opset_import: ["" : {manifest.opset}]>'
        "probe (float[1] x) => (float[1] y) { y = Identity(x) }"
    )
    try:
        _session(probe.SerializeToString())
    except UNRUNNABLE as error:
        raise UserError(
            f"{bundle}: needs opset {manifest.opset} and IR version {manifest.ir_version}, "
            f"which onnxruntime {onnxruntime.__version__} can't run; install a newer onnxruntime"
        ) from error


def _require_complete(bundle: Path, cases: list[GoldenCase], manifest: Manifest) -> None:
    """Every graph has golden vectors of all that it takes and gives."""
    found = {case.graph: Signature([*case.inputs], [*case.outputs]) for case in cases}
    for graph in sorted({*found, *manifest.graphs}):
        if found.get(graph) != manifest.graphs.get(graph):
            raise UserError(
                f"{bundle / GOLDEN}: of {graph}: {_said(found.get(graph))}, {MANIFEST} says "
                f"{_said(manifest.graphs.get(graph))}: don't use this bundle"
            )


def _replay(bundle: Path, case: GoldenCase) -> Iterator[Replayed]:
    path = bundle / case.graph
    try:
        session = _session(path)
        names = [output.name for output in session.get_outputs()]
        found = dict(zip(names, session.run(names, case.inputs), strict=True))
    except UNRUNNABLE as error:
        raise UserError(f"{path}: onnxruntime can't run it ({error})") from error
    for name, wanted in case.outputs.items():
        if found[name].shape != wanted.shape or found[name].dtype != wanted.dtype:
            raise UserError(
                f"{path}: {name} is {found[name].dtype} {found[name].shape}, its golden vector "
                f"{wanted.dtype} {wanted.shape}; don't use this bundle"
            )
        differences = np.abs(found[name].astype(np.float64) - wanted)
        yield Replayed(case.graph, name, float(differences.max()), case.tolerances[name])


def _session(model: Path | bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what is wrong is said in one line, by us
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _tensors(message: Message) -> Iterator[onnx.TensorProto]:
    """Every tensor in a message, however deep: weights, constants, those of functions."""
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        for each in [value] if isinstance(value, Message) else value:
            if isinstance(each, onnx.TensorProto):
                yield each
            else:
                yield from _tensors(each)


def _said(signature: Signature | None) -> str:
    if signature is None:
        return "nothing"
    return f"{', '.join(signature.inputs)} to {', '.join(signature.outputs)}"


def _names(values: Any) -> list[str]:
    return [value.name for value in values]


if __name__ == "__main__":
    with user_errors_in_one_line():
        if len(sys.argv) != 2:
            raise UserError("expected one argument: python -m vaekit.export.verify BUNDLE")
        check(Path(sys.argv[1]))
