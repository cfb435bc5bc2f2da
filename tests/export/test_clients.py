"""The example clients, each in the surroundings that it is meant for, on a bundle of a tiny run."""

import hashlib
import json
import os
import runpy
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import distribution
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxruntime
import pytest
from browser_helpers import NODE_MODULES, require_chromium, require_node
from bundle_helpers import (
    REFORMATTED,
    change_graph,
    facts_of,
    forge,
    hash_anew,
    reformat,
    seal,
)
from conftest import ROOT, run_command
from damage_helpers import data_flipped
from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument
from packaging.requirements import Requirement

from vaekit.export import explore
from vaekit.export.explore import RUNTIME_FILES, serving
from vaekit.export.manifest import read_golden

CLIENTS = ROOT / "export" / "clients"
ALL_WELL = "all outputs within tolerance"


class Outcome(NamedTuple):
    """What a client made of a bundle."""

    well: bool
    said: str


Client = Callable[[Path], Outcome]


@pytest.fixture(scope="session")
def plain_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python that has onnxruntime and numpy, and no PyTorch."""
    folder = tmp_path_factory.mktemp("plain")
    venv.create(folder, symlinks=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    wanted, found = ["onnxruntime", "numpy"], set()
    while wanted:
        installed = distribution(wanted.pop())
        found.add(installed.name)
        for name in {file.parts[0] for file in installed.files or () if file.parts[0] != ".."}:
            if not (packages / name).exists():  # google/ is shared, and __pycache__
                (packages / name).symlink_to(installed.locate_file(name))
        for needed in map(Requirement, installed.requires or ()):
            if needed.name not in found and (
                needed.marker is None or needed.marker.evaluate({"extra": ""})
            ):
                wanted.append(needed.name)
    return folder / "bin" / "python"


@pytest.fixture
def python_client(plain_python: Path) -> Client:
    def client(bundle: Path) -> Outcome:
        return outcome(run_command([plain_python, CLIENTS / "python" / "client.py", bundle]))

    return client


@pytest.fixture
def node_client() -> Client:
    node = require_node("onnxruntime-node")

    def client(bundle: Path) -> Outcome:
        return outcome(run_command([node, CLIENTS / "node" / "client.mjs", bundle]))

    return client


Browser = Callable[[str], dict[str, Any]]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """What Chromium shows at a URL; it starts once."""
    node, chromium = require_node(), require_chromium()
    with subprocess.Popen(
        [node, ROOT / "tests" / "browser_client.mjs"],
        env={**os.environ, "CHROMIUM": str(chromium)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def shown_at(url: str) -> dict[str, Any]:
            print(url, file=process.stdin, flush=True)
            shown: dict[str, Any] = json.loads(process.stdout.readline())
            assert "error" not in shown, shown
            return shown

        yield shown_at
        process.stdin.close()


@pytest.fixture
def browser_client(browser: Browser) -> Client:
    def client(bundle: Path) -> Outcome:
        shown = show_in_browser(browser, bundle)
        rows = [" ".join(row) for row in shown["rows"]]
        return Outcome(shown["verdict"] == ALL_WELL, "\n".join([*rows, shown["verdict"]]))

    return client


@pytest.fixture(
    params=[*(pytest.param(name, marks=pytest.mark.slow) for name in ("python", "browser")), "node"]
)
def client(request: pytest.FixtureRequest) -> Client:
    found: Client = request.getfixturevalue(f"{request.param}_client")
    return found


def outcome(result: "subprocess.CompletedProcess[str]") -> Outcome:
    assert "Traceback" not in result.stderr
    assert "    at " not in result.stderr  # how Node prints where an error came from
    well = result.returncode == 0
    assert well == (result.stdout.splitlines()[-1:] == [ALL_WELL])
    return Outcome(well, result.stdout + result.stderr)


def show_in_browser(browser: Browser, bundle: Path) -> dict[str, Any]:
    """Serve the client with all that it needs beside it, and read the page in Chromium."""
    page, runtime = CLIENTS / "browser", NODE_MODULES / "onnxruntime-web" / "dist"
    routes = {"/": page / "index.html", "/bundle.mjs": CLIENTS / "bundle.mjs"}
    routes["/client.mjs"] = page / "client.mjs"
    routes |= {f"/ort/{name}": runtime / name for name in RUNTIME_FILES}
    routes |= {f"/bundle/{path.name}": path for path in bundle.iterdir()}
    with serving(routes) as url:
        return browser(url)


def change_golden(bundle: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the decoder's golden case in a bundle whose hashes are right all the same."""
    golden = json.loads((bundle / "golden.json").read_text())
    change(next(case for case in golden["cases"] if case["graph"] == "decoder.onnx"))
    replace_file(bundle, "golden.json", json.dumps(golden).encode())


def replace_file(bundle: Path, name: str, content: bytes) -> None:
    (bundle / name).write_bytes(content)
    hash_anew(bundle)


# Every client


def test_a_client_finds_every_output_of_every_graph_within_tolerance(
    client: Client, bundle: Path
) -> None:
    well, said = client(bundle)
    assert well, said
    lines = [line.split()[:2] for line in said.splitlines()]
    for graph, signature in facts_of(bundle)["graphs"].items():
        for output in signature["outputs"]:
            assert [graph, output["name"]] in lines


def move_beyond_tolerance(case: dict[str, Any]) -> None:
    image = case["outputs"]["image"]
    image["data"][-1] += 2 * image["tolerance"]


def make_output_nan(case: dict[str, Any]) -> None:
    latent = case["inputs"]["latent"]
    latent["data"] = [1e39] * len(latent["data"])  # infinite as float32, so inf - inf inside


@pytest.mark.slow
@pytest.mark.parametrize("change", [move_beyond_tolerance, make_output_nan])
def test_a_client_fails_and_names_the_output_that_is_off(
    client: Client, bundle: Path, change: Callable[[dict[str, Any]], None]
) -> None:
    change_golden(bundle, change)
    well, said = client(bundle)
    assert not well
    assert said.count(" is off by ") == 1
    assert "decoder.onnx: image is off by " in said


@pytest.mark.parametrize("name", ["svm.onnx", "README.md"])
def test_a_client_refuses_a_bundle_with_one_flipped_bit_and_names_the_file(
    client: Client, bundle: Path, name: str
) -> None:
    data_flipped(bundle / name)
    well, said = client(bundle)
    assert not well
    assert f"{name} is damaged" in said
    assert "tolerance" not in said  # nothing was run


@pytest.mark.slow
def test_a_client_refuses_a_manifest_with_a_changed_class_name(
    client: Client, bundle: Path
) -> None:
    manifest = facts_of(bundle)
    manifest["class_names"][3] = "drei ½"  # no ASCII, as names of folders may be
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    well, said = client(bundle)
    assert not well
    assert "manifest.json is damaged" in said
    assert "tolerance" not in said
    seal(bundle, manifest)
    well, said = client(bundle)
    assert well, said


# Those on the command line, where the bundle's hashes are right but it is not


def keep_cases(bundle: Path, is_kept: Callable[[dict[str, Any]], bool]) -> None:
    golden = json.loads((bundle / "golden.json").read_text())
    golden["cases"] = [case for case in golden["cases"] if is_kept(case)]
    replace_file(bundle, "golden.json", json.dumps(golden).encode())


def drop_all_outputs(bundle: Path) -> None:
    keep_cases(bundle, lambda case: False)
    forge(bundle, graphs={})


def name_a_graph_elsewhere(bundle: Path) -> None:
    shutil.copy(bundle / "decoder.onnx", bundle.parent)
    change_golden(bundle, lambda case: case.update(graph="../decoder.onnx"))


def list_a_file_elsewhere(bundle: Path) -> None:
    (bundle.parent / "elsewhere.onnx").touch()
    empty = {"bytes": 0, "sha256": hashlib.sha256().hexdigest()}
    forge(bundle, files={**facts_of(bundle)["files"], "../elsewhere.onnx": empty})


def list_a_graph_without_its_hash(bundle: Path) -> None:
    manifest = facts_of(bundle)
    del manifest["files"]["decoder.onnx"]
    seal(bundle, manifest)


def give_an_input_another_shape(bundle: Path) -> None:
    def flatten(case: dict[str, Any]) -> None:
        latent = case["inputs"]["latent"]
        latent["shape"] = [len(latent["data"])]

    change_golden(bundle, flatten)


def need_an_opset_of_the_future(bundle: Path) -> None:
    def change(model: onnx.ModelProto) -> None:
        model.opset_import[0].version = 999

    change_graph(bundle / "decoder.onnx", change)


def use_an_unknown_operator(bundle: Path) -> None:
    def change(model: onnx.ModelProto) -> None:
        model.graph.node[0].op_type = "Unknown"

    change_graph(bundle / "decoder.onnx", change)


OUTPUTS = "golden.json does not have the outputs that manifest.json lists"
SPOILT: dict[str, tuple[Callable[[Path], object], str]] = {
    "no case": (lambda bundle: keep_cases(bundle, lambda case: False), OUTPUTS),
    "no case of the decoder": (
        lambda bundle: keep_cases(bundle, lambda case: case["graph"] != "decoder.onnx"),
        f"{OUTPUTS} (decoder.onnx image)",
    ),
    "no outputs": (drop_all_outputs, f"{OUTPUTS} (both have none)"),
    "a graph elsewhere": (name_a_graph_elsewhere, "../decoder.onnx image"),
    "a file elsewhere": (list_a_file_elsewhere, "../elsewhere.onnx"),
    "a graph without its hash": (list_a_graph_without_its_hash, "decoder.onnx"),
    "no files": (lambda bundle: forge(bundle, files=None), ""),
    "a manifest that is a number": (
        lambda bundle: (bundle / "manifest.json").write_text("1\n"),
        "",
    ),
    "golden vectors that are a list": (
        lambda bundle: replace_file(bundle, "golden.json", b"[]"),
        "",
    ),
    "golden vectors in deep brackets": (
        lambda bundle: replace_file(bundle, "golden.json", b"[" * 100_000),
        "",
    ),
    "an input without its shape": (
        lambda bundle: change_golden(bundle, lambda case: case["inputs"]["latent"].pop("shape")),
        "",
    ),
    "an input of another name": (
        lambda bundle: change_golden(
            bundle, lambda case: case.update(inputs={"other": case["inputs"]["latent"]})
        ),
        "latent",
    ),
    "an input of another shape": (give_an_input_another_shape, "latent"),
    "no graph": (lambda bundle: replace_file(bundle, "decoder.onnx", b"no protocol buffer"), ""),
    "an empty graph": (lambda bundle: replace_file(bundle, "decoder.onnx", b""), ""),
    "an opset of the future": (need_an_opset_of_the_future, "999"),
    "an unknown operator": (use_an_unknown_operator, "Unknown"),
    **{
        f"a manifest {how}": (partial(reformat, change=change), "manifest.json is damaged")
        for how, change in REFORMATTED.items()
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["python", "node"])
@pytest.mark.parametrize(("spoil", "reason"), SPOILT.values(), ids=SPOILT)
def test_a_command_line_client_exits_with_2_and_one_line_where_the_bundle_is_not_right(
    name: str,
    bundle: Path,
    spoil: Callable[[Path], object],
    reason: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    spoil(bundle)
    if name == "python":
        code, output, errors = python_client_here(bundle, capfd)
    else:
        node = require_node("onnxruntime-node")
        result = run_command([node, CLIENTS / "node" / "client.mjs", bundle])
        code, output, errors = result.returncode, result.stdout, result.stderr
    assert code == 2, errors
    assert ALL_WELL not in output
    assert len(errors.splitlines()) == 1, errors
    assert str(bundle) in errors
    assert reason in errors


def python_client_here(bundle: Path, capfd: pytest.CaptureFixture[str]) -> tuple[object, str, str]:
    """Its exit code and what it says, where onnxruntime is imported already."""
    capfd.readouterr()
    script = str(CLIENTS / "python" / "client.py")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [script, str(bundle)])
        with pytest.raises(SystemExit) as stop:
            runpy.run_path(script, run_name="__main__")
    onnxruntime.set_default_logger_severity(2)  # as it was
    return stop.value.code, *capfd.readouterr()


# One client


@pytest.mark.slow
def test_the_python_client_runs_where_there_is_no_torch(plain_python: Path) -> None:
    result = run_command([plain_python, "-c", "import torch"])
    assert "No module named 'torch'" in result.stderr


@pytest.mark.slow
def test_the_browser_client_needs_no_cross_origin_isolation(
    browser: Browser, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    isolated = show_in_browser(browser, bundle)
    for whose in ("Opener", "Embedder"):
        monkeypatch.delitem(explore.HEADERS, f"Cross-Origin-{whose}-Policy")
    plain = show_in_browser(browser, bundle)
    assert (isolated["isolated"], plain["isolated"]) == (True, False)
    assert isolated["verdict"] == plain["verdict"] == ALL_WELL


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [[], ["no-such-folder"], ["one", "two"]])
def test_a_command_line_client_exits_with_2_and_one_line_where_it_gets_no_bundle(
    arguments: list[str],
) -> None:
    node = require_node("onnxruntime-node")
    for command in ([sys.executable, "python/client.py"], [node, "node/client.mjs"]):
        result = run_command([*command, *arguments], cwd=CLIENTS)
        assert result.returncode == 2
        assert result.stdout == ""
        assert len(result.stderr.splitlines()) == 1


def test_what_a_test_lacks_is_named_with_the_command_that_gets_it_and_fails_under_ci(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(
        pytest.skip.Exception, match=r"package absent is .* `npm ci --prefix export`"
    ):
        require_node("absent")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(pytest.skip.Exception, match=r"node is missing; .* `apt-get install nodejs"):
        require_node()
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="node is missing"):
        require_chromium()


PYTHON_APPLICATION = """
import json, sys
from pathlib import Path
import numpy as np
from client import classify
folder, data, shape = sys.argv[1:]
images = np.array(json.loads(data), np.uint8).reshape(json.loads(shape))
print(json.dumps(classify(Path(folder), images)))
"""

NODE_APPLICATION = """
import { readFile } from "node:fs/promises";
import * as ort from "onnxruntime-node";
import { classify, openBundle } from "./clients/bundle.mjs";
const [folder, data, shape] = process.argv.slice(1);
const bundle = await openBundle(ort, (name) => readFile(`${folder}/${name}`));
const images = { data: JSON.parse(data), shape: JSON.parse(shape) };
console.log(JSON.stringify(await classify(ort, bundle, images)));
"""


@pytest.mark.slow
def test_classify_gives_class_names_in_python_and_in_node(bundle: Path) -> None:
    (case,) = (each for each in read_golden(bundle) if each.graph == "classifier.onnx")
    images = case.inputs["image"]
    arguments = [bundle, json.dumps(images.ravel().tolist()), json.dumps(images.shape)]
    python = [sys.executable, "-c", PYTHON_APPLICATION, *arguments]
    node = [require_node("onnxruntime-node"), "--input-type=module", "-e", NODE_APPLICATION]
    results = [
        run_command(python, cwd=CLIENTS / "python"),
        run_command([*node, *arguments], cwd=CLIENTS.parent),
    ]
    class_names = facts_of(bundle)["class_names"]
    expected = [class_names[label] for label in case.outputs["label"]]
    for result in results:
        assert json.loads(result.stdout) == expected, result.stderr


# What the graphs themselves make of bad input


def run(bundle: Path, graph: str, **inputs: np.ndarray) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(bundle / graph)
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


@pytest.mark.parametrize("graph", ["encoder.onnx", "classifier.onnx"])
@pytest.mark.parametrize(
    ("shape", "dtype", "complaint"),
    [
        ((28, 28), "uint8", "Invalid rank for input: image"),
        ((1, 1, 29, 28), "uint8", "invalid dimensions for input: image"),
        ((1, 3, 28, 28), "uint8", "invalid dimensions for input: image"),
        ((1, 1, 28, 28), "float32", "Unexpected input data type"),
    ],
    ids=["rank", "size", "channels", "dtype"],
)
def test_images_of_another_form_get_onnxruntimes_typed_error(
    bundle: Path, graph: str, shape: tuple[int, ...], dtype: str, complaint: str
) -> None:
    run(bundle, graph, image=np.zeros((1, 1, 28, 28), np.uint8))
    with pytest.raises(InvalidArgument, match=complaint):
        run(bundle, graph, image=np.zeros(shape, dtype))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_latents_that_are_not_finite_show_in_what_comes_out(bundle: Path, value: float) -> None:
    latent = np.zeros((2, facts_of(bundle)["latent"]["dimensions"]), np.float32)
    spoiled = latent.copy()
    spoiled[0, 1] = value
    if np.isnan(value):
        image = run(bundle, "decoder.onnx", latent=spoiled)["image"]
        assert np.isnan(image[0]).all()
        assert np.isfinite(image[1]).all()
    for name in ("mean", "log_variance"):
        inputs = {"mean": latent, "log_variance": latent} | {name: spoiled}
        label = run(bundle, "svm.onnx", **inputs)["label"]
        assert label[0] == -1
        assert label[1] >= 0


def test_a_batch_of_none_gives_outputs_of_none(bundle: Path) -> None:
    for graph, signature in facts_of(bundle)["graphs"].items():
        outputs = run(bundle, graph, **{each["name"]: empty(each) for each in signature["inputs"]})
        assert {name: (value.dtype, value.shape) for name, value in outputs.items()} == {
            each["name"]: (empty(each).dtype, empty(each).shape) for each in signature["outputs"]
        }


def empty(signature: dict[str, Any]) -> np.ndarray:
    batch, *rest = signature["shape"]
    assert batch == "batch"
    return np.zeros((0, *rest), signature["type"])
