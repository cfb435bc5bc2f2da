"""What Triton Inference Server reads beside a graph: its config.pbtxt, made from the manifest."""

from typing import Any

from vaekit.export.compare import MAX_BATCH

LABELS = "labels.txt"

_TYPES = {"uint8": "TYPE_UINT8", "int64": "TYPE_INT64", "float32": "TYPE_FP32"}


def config_name(graph: str) -> str:
    """Of the file for a graph, as in encoder.pbtxt for encoder.onnx."""
    return graph.removesuffix(".onnx") + ".pbtxt"


def model_config(signature: dict[str, Any], *, scores_are_of_labels: bool) -> str:
    """A ModelConfig in protobuf's text format, for a graph with the manifest's `signature`.

    Requests are batched as they come, up to as many images as the graphs were compared on. With
    `scores_are_of_labels` column i of the scores is of line i of labels.txt, which Triton's
    classification extension then gives by name.
    """
    lines = ['backend: "onnxruntime"', f"max_batch_size: {MAX_BATCH}", "dynamic_batching { }"]
    for kind in ("input", "output"):
        for value in signature[f"{kind}s"]:
            lines += [
                f"{kind} {{",
                f'  name: "{value["name"]}"',
                f"  data_type: {_TYPES[value['type']]}",
                *_shape(value["shape"][1:]),
            ]
            if value["name"] == "scores" and scores_are_of_labels:
                lines.append(f'  label_filename: "{LABELS}"')
            lines.append("}")
    return "\n".join([*lines, ""])


def labels_text(class_names: list[str]) -> str:
    """One name a line; line i, counted from 0, is of label i."""
    return "".join(" ".join(name.splitlines()) + "\n" for name in class_names)


def _shape(lengths: list[int]) -> list[str]:
    """Without the batch; Triton wants a dimension where the graph has no other."""
    if not lengths:
        return ["  dims: [ 1 ]", "  reshape { shape: [ ] }"]
    return [f"  dims: [ {', '.join(str(length) for length in lengths)} ]"]
