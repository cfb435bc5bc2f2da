"""Files of a stranger: no code runs, nothing is believed because its hash fits, all in one line."""

import io
import json
import os
import pickle
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from damage_helpers import Refused, copy, snapshot

from vaekit.cli import main
from vaekit.config import SvmConfig, TrainConfig
from vaekit.errors import UserError
from vaekit.report.map import latent_map
from vaekit.runs.checkpoints import load_newest_checkpoint
from vaekit.runs.folder import RunFolder
from vaekit.runs.index import INDEX
from vaekit.runs.run import Run
from vaekit.settings import read_config
from vaekit.stages.svm import fit_svm
from vaekit.storage.damage import Damaged
from vaekit.storage.files import file_sha256
from vaekit.storage.sealed import write_sealed
from vaekit.storage.tensors import read_tensors, write_tensors


class Bomb:
    """Unpickling it makes a file."""

    def __init__(self, sentinel: Path) -> None:
        self.sentinel = sentinel

    def __reduce__(self) -> tuple[Callable[..., None], tuple[Path]]:
        return Path.touch, (self.sentinel,)


@pytest.fixture
def sentinel(tmp_path: Path) -> Path:
    return tmp_path / "sentinel"


def pickled(bomb: Bomb) -> bytes:
    return pickle.dumps(bomb)


def as_array(bomb: Bomb) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.array([bomb], dtype=object), allow_pickle=True)
    return buffer.getvalue()


def as_torch_file(bomb: Bomb) -> bytes:
    buffer = io.BytesIO()
    torch.save(bomb, buffer)
    return buffer.getvalue()


def test_the_bomb_does_go_off(sentinel: Path) -> None:
    pickle.loads(pickled(Bomb(sentinel)))  # noqa: S301 - that is the point
    assert sentinel.exists()


@pytest.mark.parametrize(
    ("kind", "keeps_config"),
    [
        (pickled, True),  # with a config the stages get further
        pytest.param(pickled, False, marks=pytest.mark.faults),
        pytest.param(as_array, True, marks=pytest.mark.faults),
        pytest.param(as_torch_file, True, marks=pytest.mark.faults),
    ],
)
@pytest.mark.injects(13)
def test_a_pickle_in_the_place_of_any_file_of_a_run_runs_no_code(
    kind: Callable[[Bomb], bytes],
    keeps_config: bool,
    exported_run: Path,
    tmp_path: Path,
    sentinel: Path,
    refused: Refused,
) -> None:
    run, image = copy(exported_run, tmp_path / "run"), tmp_path / "image.png"
    shutil.copy(run / "samples" / "epoch-000.png", image)
    config, content = (run / "config.yaml").read_bytes(), kind(Bomb(sentinel))
    for path in [path for path in run.rglob("*") if path.is_file()]:
        path.write_bytes(content)
        for suffix in (".pt", ".bin", ".pkl", ".skops"):
            path.with_suffix(suffix).write_bytes(content)
    if keeps_config:
        (run / "config.yaml").write_bytes(config)
    for arguments in (
        ["train", "--config", run / "config.yaml", "--run", run],
        ["latents", run],
        ["svm", run],
        ["report", run],
        ["generate", run, "--output", tmp_path / "grid.png"],
        ["predict", run, image],
        ["export", run],
        ["export", run / "onnx", "--check"],
    ):
        refused(*arguments)
    assert not sentinel.exists()


EVIL_MODULE = """
from pathlib import Path
from dataclasses import dataclass
from vaekit.config import ModelConfig
Path({sentinel!r}).touch()
@dataclass(frozen=True)
class Model(ModelConfig):
    pass
"""


@pytest.mark.parametrize(
    "model",
    [
        {"class_path": "evil_module.Model"},
        {"class_path": "evil_module.Model", "init_args": {"latent_dim": 3}},
        "evil_module.Model",
        "{class_path: evil_module.Model}",
        "evil.yaml",
    ],
)
@pytest.mark.injects(13)
def test_settings_that_name_a_class_import_nothing(
    model: object,
    run: Path,
    sentinel: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    refused: Refused,
) -> None:
    (tmp_path / "evil_module.py").write_text(EVIL_MODULE.format(sentinel=str(sentinel)))
    (tmp_path / "evil.yaml").write_text("class_path: evil_module.Model")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    settings = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(yaml.safe_dump(settings | {"model": model}))
    refused("latents", run)
    refused("train", "--config", run / "config.yaml", "--run", run)

    (run / "config.yaml").write_text(yaml.safe_dump(settings))
    forge_tensors(run / "model.safetensors", facts={"model": model})
    refused("latents", run)
    assert not sentinel.exists()


@pytest.mark.parametrize(
    "text",
    [
        "epochs: !!python/object/apply:os.system ['touch SENTINEL']",
        "epochs: !!python/name:os.system",
        "run: !!binary aGVsbG8=",
        "run: &a [*a]",
        "a: &a [x,x,x,x]\nb: &b [*a,*a,*a]\nrun: [*b,*b,*b]",
        "run: " + "[" * 20_000,
        "run: 2024-01-01",
        "run: 2024-99-99",
        "2024-01-01: 1",
        "1: 1",
        "seed: 0x_",
        "seed: " + "1" * 5000,
        "learning_rate: .nan",
        "config: /etc/hostname",
        "model: 1",
        "\t",
        "- 1",
        "",
        "\0",
    ],
)
@pytest.mark.injects(13)
def test_yaml_that_is_more_than_settings_is_one_line(
    text: str, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: Refused
) -> None:
    monkeypatch.chdir(tmp_path)
    (run / "config.yaml").write_text(text)
    line = refused("train", "--config", run / "config.yaml", "--run", run)
    assert len(line) < 1000
    refused("latents", run)
    with pytest.raises(UserError):
        read_config(TrainConfig, run / "config.yaml")
    assert not (tmp_path / "SENTINEL").exists()


KIND = {"format_name": "test", "version": 1}


def safetensors(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(shape: list[int], begin: int, end: int, dtype: str = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def with_metadata(text: str, **tensors: object) -> dict[str, object]:
    return {"__metadata__": {"vaekit": text}, **tensors}


OWN = '{"format": "test", "format_version": 1, "sha256": "0"}'
TWICE = b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'


@pytest.mark.parametrize(
    "content",
    [
        b"",
        bytes(100),
        b"<html>not found</html>",
        safetensors(b"{}", length=2**63),
        safetensors(b"{}", length=99_000_000),
        safetensors(b"[" * 100_000),
        safetensors({"a": entry([2], 0, 8), "b": entry([2], 4, 12)}, bytes(12)),
        safetensors({"a": entry([2], 0, 80)}, bytes(8)),
        safetensors({"a": entry([2], 8, 16)}, bytes(8)),
        safetensors({"a": entry([2**33, 2**33], 0, 8)}, bytes(8)),
        safetensors({"a": entry([-1], 0, 4)}, bytes(4)),
        safetensors(TWICE.replace(b"}}", b"}," + TWICE[1:]), bytes(4)),
        safetensors(b'{"__metadata__":{"vaekit":"{}","vaekit":"[]"}}'),
        *(
            safetensors(with_metadata(text))
            for text in ("[]", "5", "null", '"x"', "{", "[" * 200_000, "1" * 5000, OWN)
        ),
        *(
            safetensors(with_metadata(OWN, a=entry([1], 0, size, dtype)), bytes(size))
            for dtype, size in (("BF16", 2), ("F8_E4M3", 1), ("C64", 8), ("U64", 8), ("F4", 1))
        ),
    ],
)
@pytest.mark.injects(14)
def test_a_safetensors_file_that_was_made_by_hand_is_one_error(
    content: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "made.safetensors"
    path.write_bytes(content)
    with pytest.raises(Damaged) as error:
        read_tensors(path, **KIND)
    assert len(str(error.value)) < 1000


def forge_tensors(
    path: Path,
    facts: dict[str, object] | None = None,
    tensors: dict[str, torch.Tensor | None] | None = None,
    **given: object,
) -> None:
    """Change a file of tensors and give it a hash that fits; None takes a part out."""
    kinds = {
        "model.safetensors": ("vaekit-weights", 1),
        "svm.safetensors": ("vaekit-svm", 1),
        "tsne.safetensors": ("vaekit-map", 1),
    }
    format_name, version = kinds[path.name]
    found = read_tensors(path, format_name=format_name, version=version)
    changed: dict[str, Any] = {**found.tensors, **(tensors or {})}
    recorded = {**found.metadata, **(facts or {})}
    write_tensors(
        path,
        {name: tensor for name, tensor in changed.items() if tensor is not None},
        {name: fact for name, fact in recorded.items() if fact is not None},
        format_name=format_name,
        version=version,
    )


@pytest.mark.parametrize(
    "facts",
    [
        {"image_shape": None},
        {"image_shape": [1, 28]},
        {"image_shape": "abc"},
        {"image_shape": [1, 28.0, 28]},
        {"image_shape": [1, -28, 28]},
        {"image_shape": [1, 10**9, 10**9]},
        {"image_shape": [10**9, 28, 28]},
        {"image_shape": [1, 29, 28]},
        {"image_shape": [1, 1, 1]},
        {"model": None},
        {"model": []},
        {"model": {"latent_dim": 10**9}},
        {"model": {"hidden_dims": [65536, 65536, 65536]}},
        {"model": {"conv_channels": ["x"]}},
        {"class_names": None},
        {"class_names": "0123456789"},
        {"class_names": [0, 1]},
        {"images_sha256": 5},
    ],
    ids=str,
)
@pytest.mark.injects(14)
def test_weights_with_forged_facts_are_refused_before_they_take_memory(
    facts: dict[str, object], run: Path
) -> None:
    forge_tensors(run / "model.safetensors", facts)
    with pytest.raises(UserError):
        Run(run).weights


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({"enc.mu.bias": None}, "enc.mu.bias is absent, expected torch.float32 (3,)"),
        ({"enc.extra": torch.ones(1)}, "enc.extra is torch.float32 (1,), expected absent"),
        ({"enc.mu.bias": torch.ones(4)}, "enc.mu.bias is torch.float32 (4,)"),
        ({"enc.mu.bias": torch.ones(3, 1)}, "enc.mu.bias is torch.float32 (3, 1)"),
        ({"enc.mu.bias": torch.ones(3).double()}, "enc.mu.bias is torch.float64"),
        ({"enc.mu.bias": torch.ones(3).bfloat16()}, "enc.mu.bias is torch.bfloat16"),
    ],
)
@pytest.mark.injects(14)
def test_weights_of_another_name_shape_or_type_are_refused(
    tensors: dict[str, torch.Tensor | None], words: str, run: Path, refused: Refused
) -> None:
    forge_tensors(run / "model.safetensors", tensors=tensors)
    line = refused("latents", run)
    assert words in line
    assert "make it again with `vaekit train --config" in line


@pytest.mark.parametrize(
    ("facts", "tensors"),
    [
        ({"class_names": None}, {}),
        ({"class_names": ["x"] * 10}, {}),
        ({"class_names": [*"0123456789", "more"]}, {}),
        ({"model_sha256": None}, {}),
        ({}, {"gamma": torch.ones(()).bfloat16()}),
        ({}, {"classes": None}),
        ({}, {"num_support": torch.tensor([2**62] * 10)}),
        ({}, {"feature_mean": torch.zeros(0, dtype=torch.float64)}),
        ({}, {"gamma": torch.tensor(float("inf"), dtype=torch.float64)}),
    ],
)
@pytest.mark.injects(16)
def test_an_svm_with_forged_facts_is_refused(
    facts: dict[str, object], tensors: dict[str, torch.Tensor | None], run: Path, refused: Refused
) -> None:
    forge_tensors(run / "svm" / "svm.safetensors", facts, tensors)
    before = snapshot(run)
    assert "svm.safetensors" in refused("predict", run, run / "samples/epoch-000.png")
    assert snapshot(run) == before


@pytest.mark.parametrize(
    "tensors",
    [
        {"points": None},
        {"points": torch.zeros(1, 2)},
        {"points": torch.zeros(96, 2).double()},
        {"points": torch.full((96, 2), torch.nan)},
        {"indices": torch.arange(96) + 10**6},
        {"indices": None},
    ],
)
@pytest.mark.injects(14)
def test_a_map_with_forged_points_is_refused(
    tensors: dict[str, torch.Tensor | None],
    run: Path,
) -> None:
    folder = RunFolder(run)
    forge_tensors(folder.figures / "tsne.safetensors", tensors=tensors)
    with pytest.raises(UserError, match=r"tsne\.safetensors: not as vaekit writes it"):
        latent_map(folder, Run(folder.path).latents)


def forge_latents(run: Path, arrays: dict[str, Any], **facts: object) -> None:
    """Put other arrays, or bytes, among the latents with hashes that fit."""
    path = run / "latents" / "latents.json"
    found = json.loads(path.read_text())
    del found["sha256"]
    for name, array in arrays.items():
        if isinstance(array, bytes):
            (run / "latents" / name).write_bytes(array)
        else:
            np.save(run / "latents" / name, array)
        found["files"][name] = file_sha256(run / "latents" / name)
    found["files"].pop(INDEX, None)  # which would have to be of as many rows
    write_sealed(path, {**found, **facts})


def npy(header: str) -> bytes:
    text = f"{header}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + bytes(64)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((96, 6)),
        np.zeros(96, np.float32),
        np.zeros((95, 6), np.float32),
        np.zeros((96, 5), np.float32),
        np.zeros((96, 8), np.float32),
        np.zeros((0, 6), np.float32),
        npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }"),
        npy("{'descr': '<f4', 'fortran_order': False, 'shape': (999999999999, 6), }"),
        npy("{'descr': '<f4', 'fortran_order': False, 'shape': (" + "9" * 40 + ", 6), }"),
        npy("{'descr': '<f4', 'fortran_order': False, 'shape': (" + "-" * 3000 + "1, 6), }"),
        npy("{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 6), }"),
        npy("{'descr': '<f4'"),
        npy("(" * 200),
        b"",
        b"PK\x03\x04" + bytes(100),
    ],
)
@pytest.mark.injects(14)
def test_an_array_of_another_kind_is_refused_though_its_hash_fits(
    array: Any, run: Path, refused: Refused
) -> None:
    forge_latents(run, {"train_latents.npy": array})
    before = snapshot(run)
    line = refused("svm", run)
    assert "latents" in line
    assert "make them with `vaekit latents" in line
    assert len(line) < 1000
    assert snapshot(run) == before


@pytest.mark.parametrize(
    "facts",
    [
        {"files": {}},
        {"files": []},
        {"files": {"../config.yaml": "0"}},
        {"files": {"train_latents.npy": "0", "test_latents.npy": "0", "../../x": "0"}},
        {"class_names": 5},
        {"class_names": ["0"]},
        {"model_sha256": None},
    ],
    ids=str,
)
@pytest.mark.injects(14)
def test_facts_of_latents_that_are_none_are_refused_though_their_hash_fits(
    facts: dict[str, object], run: Path
) -> None:
    forge_latents(run, {}, **facts)
    with pytest.raises(UserError, match="make them with `vaekit latents"):
        Run(run).latents


@pytest.mark.parametrize(
    "change",
    [
        {"confusion_matrix": [[1]]},
        {"confusion_matrix": [["x"] * 10] * 10},
        {"per_class": []},
        {"per_class": [{}] * 10},
        {"accuracy": "high"},
        {"C": True},
        {"backend": 5},
        {"num_support_vectors": 1.5},
    ],
    ids=str,
)
@pytest.mark.injects(16)
def test_forged_measurements_of_an_svm_are_refused(change: dict[str, object], run: Path) -> None:
    path = run / "svm" / "metrics.json"
    metrics = json.loads(path.read_text())
    del metrics["sha256"]
    write_sealed(path, metrics | change)
    with pytest.raises(UserError, match=r"metrics\.json: not as vaekit writes it"):
        Run(run).svm_metrics


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("environment.json", "5"),
        ("environment.json", "[1]"),
        ("environment.json", '[{"time": 5}]'),
        ("environment.json", '[{"versions": []}]'),
        ("environment.json", "[" * 100_000),
        ("latents/latents.json", "[]"),
        ("svm/metrics.json", "[]"),
        ("metrics.jsonl", "[" * 100_000),
        ("metrics.jsonl", "{}"),
        ("metrics.jsonl", '{"epoch": 5}'),
        ("metrics.jsonl", "1" * 5000),
        (
            "metrics.jsonl",
            '{"epoch": 0, "test_loss": NaN, "test_reconstruction": 1, "test_kl": 1}',
        ),
    ],
)
@pytest.mark.injects(14)
def test_json_that_is_not_what_it_should_be_stops_the_report(
    name: str, text: str, run: Path, refused: Refused
) -> None:
    (run / name).write_text(text)
    assert Path(name).name in refused("report", run)


def few_latents(run: Path, labels: list[int], latents: object) -> None:
    """Latents of a few images with a hash that fits, the same to train and to test on."""
    shutil.rmtree(run / "baselines")  # which are of all images
    rows = np.asarray(latents, np.float32)
    array = np.asarray(labels, np.int64)
    forge_latents(
        run,
        {
            **{f"{name}_latents.npy": rows for name in ("train", "test")},
            **{f"{name}_labels.npy": array for name in ("train", "test")},
        },
    )


NOISE = np.random.default_rng(0).normal(size=(12, 6))


@pytest.mark.parametrize(
    ("labels", "latents", "words"),
    [
        ([3] * 12, NOISE, "an SVM needs at least two classes"),
        ([3], NOISE[:1], "an SVM needs at least two classes"),
        ([0, 1] * 6, np.where(NOISE > 1, np.nan, NOISE), "rows are not finite"),
        ([0, 1] * 6, np.where(NOISE > 1, np.inf, NOISE), "rows are not finite"),
        ([0, 1] * 6, np.where(NOISE > 1, -np.inf, NOISE), "rows are not finite"),
        ([0, 99], NOISE[:2], "no index into the 10 classes"),
        ([0, -1], NOISE[:2], "no index into the 10 classes"),
    ],
    ids=["one class", "one image", "nan", "inf", "-inf", "too large", "negative"],
)
@pytest.mark.injects(16)
def test_latents_that_no_svm_can_learn_from_are_refused_and_the_old_one_stays(
    labels: list[int], latents: object, words: str, run: Path, refused: Refused
) -> None:
    few_latents(run, labels, latents)
    before = snapshot(run)
    assert words in refused("svm", run)
    assert snapshot(run) == before


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("labels", "latents"),
    [
        ([0, 1] * 6, np.zeros((12, 6))),
        ([0, 1] * 6, np.full((12, 6), 3e38)),
        ([0, 1] * 6, NOISE * 1e-38),
        (list(range(10)), NOISE[:10]),
        ([0, 9], NOISE[:2]),
        ([0] * 11 + [5], NOISE),
        ([0, 1], np.zeros((2, 6))),
    ],
    ids=["constant", "huge", "tiny", "a class an image", "two", "a single one", "two equal"],
)
@pytest.mark.injects(16)
def test_latents_at_the_edge_of_what_can_be_learned_give_an_svm(
    labels: list[int], latents: object, run: Path
) -> None:
    few_latents(run, labels, latents)
    fit_svm(Run(run), SvmConfig())
    assert Run(run).svm.table.classes.tolist() == sorted(set(labels))
    main(["predict", str(run), str(run / "samples" / "epoch-000.png")])


@pytest.mark.injects(6)
def test_a_checkpoint_folder_that_is_a_link_or_holds_other_files_is_read_all_the_same(
    run: Path, tmp_path: Path
) -> None:
    (run / "checkpoints").rename(tmp_path / "on another disk")
    (run / "checkpoints").symlink_to(tmp_path / "on another disk")
    (run / "checkpoints" / "step-notes.txt").write_text("mine")
    (run / "checkpoints" / ".tmp-step-00000099.safetensors").write_bytes(b"torn")
    os.mkfifo(run / "checkpoints" / "step-99999999.safetensors")
    checkpoint = load_newest_checkpoint(run / "checkpoints")
    assert checkpoint is not None
    assert checkpoint.step == 12
