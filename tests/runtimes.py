"""What a bundle gives in other runtimes and versions: `make test-runtimes BUNDLE=runs/digits/onnx`.

Each has an environment of its own in build/runtimes/, in which this file replays golden.json: it
imports the standard library, NumPy and the runtime. A row says how far off the worst output is.
"""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

FOLDER = Path("build/runtimes")
Outputs = dict[str, np.ndarray]


class World(NamedTuple):
    """A runtime to try, and what to install for it."""

    name: str
    requirements: tuple[str, ...]
    runner: str  # in RUNNERS


WORLDS = (
    World("onnxruntime 1.16.3", ("onnxruntime==1.16.3", "numpy<2"), "onnxruntime"),
    World("onnxruntime, newest", ("onnxruntime", "numpy"), "onnxruntime"),
    World("OpenVINO, as it comes", ("openvino", "numpy"), "openvino"),
    World("OpenVINO, INFERENCE_PRECISION_HINT f32", ("openvino", "numpy"), "openvino f32"),
    World("OpenCV, new engine", ("opencv-python-headless>=5", "numpy"), "opencv"),
    World("onnx's reference evaluator", ("onnx", "numpy"), "onnx"),
)


def main(bundle: Path) -> None:
    """Try every world, and print a table."""
    uv = FOLDER / "tools" / "bin" / "uv"
    if not uv.exists():
        subprocess.run([sys.executable, "-m", "venv", FOLDER / "tools"], check=True)
        subprocess.run([uv.parent / "pip", "install", "--quiet", "uv"], check=True)
    print("| runtime | version | worst output, in tolerances | labels |\n|---|---|---|---|")
    for world in WORLDS:
        environment = FOLDER / world.name.replace(" ", "-").replace(",", "")
        python = environment / "bin" / "python"
        for command in (
            ["venv", "--quiet", "--clear", "--python", "3.11", environment],
            ["pip", "install", "--quiet", "--python", python, *world.requirements],
        ):
            subprocess.run([uv, *command], check=True)
        result = subprocess.run(
            [python, __file__, "--replay", world.runner, bundle], capture_output=True, text=True
        )
        last = (result.stdout if result.returncode == 0 else result.stderr).splitlines()[-1:]
        print(f"| {world.name} | {''.join(last) or 'nothing said |  | '} |", flush=True)


def replay(runner: str, bundle: Path) -> None:
    """Print the version, how far off the worst output is, and how many labels are equal."""
    version, load = RUNNERS[runner]()
    worst, place, num_labels, num_equal = 0.0, "none off", 0, 0
    for case in json.loads((bundle / "golden.json").read_text())["cases"]:
        run = load(bundle / case["graph"], list(case["outputs"]))
        found = run({name: as_array(value) for name, value in case["inputs"].items()})
        for name, value in case["outputs"].items():
            wanted = as_array(value)
            off = np.abs(found[name].reshape(wanted.shape).astype(np.float64) - wanted).max()
            if name == "label":
                num_labels += wanted.size
                num_equal += int((found[name].reshape(wanted.shape) == wanted).sum())
            elif not off / value["tolerance"] <= worst:
                worst, place = off / value["tolerance"], f"{case['graph']} {name}"
    print(f"{version} | {worst:.2g} ({place}) | {num_equal} of {num_labels} equal")


def as_array(value: dict[str, Any]) -> np.ndarray:
    return np.array(value["data"], dtype=value["type"]).reshape(value["shape"])


Load = Callable[[Path, list[str]], Callable[[Outputs], Outputs]]


def with_onnxruntime() -> tuple[str, Load]:
    import onnxruntime

    def load(path: Path, names: list[str]) -> Callable[[Outputs], Outputs]:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        return lambda inputs: dict(zip(names, session.run(names, inputs), strict=True))

    return onnxruntime.__version__, load


def with_openvino(**settings: str) -> tuple[str, Load]:
    import openvino

    def load(path: Path, names: list[str]) -> Callable[[Outputs], Outputs]:
        model = openvino.Core().compile_model(str(path), "CPU", settings)
        return lambda inputs: {name: model(inputs)[name] for name in names}

    return openvino.__version__.split("-")[0], load


def with_opencv() -> tuple[str, Load]:
    import cv2

    def load(path: Path, names: list[str]) -> Callable[[Outputs], Outputs]:
        net = cv2.dnn.readNetFromONNX(str(path), cv2.dnn.ENGINE_NEW)

        def run(inputs: Outputs) -> Outputs:
            for name, value in inputs.items():
                net.setInput(value, name)
            return dict(zip(names, net.forward(names), strict=True))

        return run

    return cv2.__version__, load


def with_onnx() -> tuple[str, Load]:
    import onnx
    from onnx.reference import ReferenceEvaluator

    def load(path: Path, names: list[str]) -> Callable[[Outputs], Outputs]:
        session = ReferenceEvaluator(str(path))
        return lambda inputs: dict(zip(names, session.run(names, inputs), strict=True))

    return onnx.__version__, load


RUNNERS: dict[str, Callable[[], tuple[str, Load]]] = {
    "onnxruntime": with_onnxruntime,
    "openvino": with_openvino,
    "openvino f32": lambda: with_openvino(INFERENCE_PRECISION_HINT="f32"),
    "opencv": with_opencv,
    "onnx": with_onnx,
}

if __name__ == "__main__":
    if sys.argv[1:2] == ["--replay"]:
        replay(sys.argv[2], Path(sys.argv[3]))
    else:
        main(Path(sys.argv[1]))
