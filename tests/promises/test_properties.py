"""What must hold of any settings, any set of images, any number of ranks, and any bytes."""

import io
import json
import math
import random
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from vaekit.config import (
    DataConfig,
    ModelConfig,
    SvmConfig,
    TrainConfig,
    to_dict,
    trajectory_differences,
)
from vaekit.errors import UserError
from vaekit.export.manifest import (
    GoldenCase,
    read_golden,
    read_manifest,
    require_intact,
    write_golden,
    write_manifest,
)
from vaekit.runs.run import Run
from vaekit.runs.svm import read_table
from vaekit.settings import from_dict, read_config, write_config
from vaekit.storage.arrays import read_npy
from vaekit.storage.damage import Damaged
from vaekit.storage.sealed import write_sealed
from vaekit.storage.tensors import read_tensors, write_tensors
from vaekit.training.noise import epoch_order


def quick(max_examples: int) -> Callable[[Any], Any]:
    return settings(
        max_examples=max_examples,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],  # to shrink a failure would take minutes
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    )


# Settings

# What a path may hold: no NUL, no half of a surrogate pair.
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1)
FOLDER = TEXT.map(lambda name: f"runs/{name}")  # alone, a # or a ~ would stand for no folder
POSITIVE = st.floats(min_value=1e-12, max_value=1e12, allow_subnormal=False)
WIDTHS = st.lists(st.integers(1, 65_536), min_size=1, max_size=4).map(tuple)
DATA = st.builds(
    DataConfig,
    name=st.sampled_from(["mnist", "fashion-mnist", "kmnist", "digits", "folder"]),
    root=TEXT,
    image_size=st.integers(8, 1024) | st.sampled_from(["8,1024", "32,48"]),
    fit=st.sampled_from(["stretch", "pad", "crop"]),
    background=st.sampled_from(["auto", "none", "white", "#20a0ff"]),
    channels=st.none() | st.integers(1, 4),
    value_range=st.sampled_from(["auto", "0,4095", "-1.5,2e3"]),
    pages=st.sampled_from(["first", "all"]),
    reading=st.sampled_from(["auto", "content", "suffix"]),
    limit=st.none() | st.integers(1, 10**9),
    holdout=st.none() | st.integers(1, 10**9),
    skip_unreadable=st.booleans(),
)
MODEL = st.builds(
    ModelConfig,
    latent_dim=st.integers(1, 65_536),
    conv_channels=WIDTHS,
    hidden_dims=WIDTHS,
)
SHARE = st.just("auto") | st.floats(0, 1, exclude_min=True)
TRAIN = st.builds(
    TrainConfig,
    run=st.none() | FOLDER,
    data=DATA,
    model=MODEL,
    epochs=st.integers(1, 10**6),
    batch_size=st.integers(1, 10**6),
    learning_rate=POSITIVE,
    warmup_steps=st.integers(0, 10**6),
    weight_decay=st.floats(0, 1e6),
    input_noise=st.floats(0, 1e6),
    augment_share=SHARE,
    augment_until=SHARE,
    ema_decay=st.floats(0, 1, exclude_max=True),
    seed=st.integers(0, 2**63),
    mixed_precision=st.sampled_from(["auto", "no", "bf16", "fp16"]),
    sample_every=st.integers(1, 100),
    checkpoint_every=st.integers(1, 100) | st.sampled_from(["500steps", "10min", "auto"]),
    tracker=st.none() | st.just("tensorboard"),
)


@quick(60)
@given(config=TRAIN)
def test_any_settings_come_back_from_their_file(config: TrainConfig, tmp_path: Path) -> None:
    write_config(tmp_path / "config.yaml", config)
    assert read_config(TrainConfig, tmp_path / "config.yaml") == config
    assert from_dict(TrainConfig, json.loads(json.dumps(to_dict(config)))) == config
    assert trajectory_differences(config, config) == []


@quick(8)
@given(C=POSITIVE, gamma=POSITIVE)
def test_any_settings_of_an_svm_come_back_from_their_file(
    C: float, gamma: float, tmp_path: Path
) -> None:
    write_config(tmp_path / "config.yaml", SvmConfig(C, gamma=gamma))
    assert read_config(SvmConfig, tmp_path / "config.yaml") == SvmConfig(C, gamma=gamma)


@pytest.mark.injects(13, times=40)
@quick(40)
@given(
    text=st.text(st.sampled_from("&*!|>-?:{}[]'\"#,~ \t\nrunepochsmodeldata0123.e"), max_size=60)
)
def test_any_text_is_settings_or_one_error(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(UserError):  # so short a text never names every setting
        read_config(TrainConfig, tmp_path / "config.yaml")


# The order of the images


@quick(60)
@given(seed=st.integers(0, 2**63), epoch=st.integers(0, 10**6), num_images=st.integers(1, 3000))
def test_an_epoch_is_a_permutation_of_the_images_and_only_its_own(
    seed: int, epoch: int, num_images: int
) -> None:
    order = np.asarray(epoch_order(seed, epoch, num_images))
    assert sorted(order.tolist()) == list(range(num_images))
    assert np.array_equal(order, epoch_order(seed, epoch, num_images))
    if num_images > 20:  # 20! orders
        assert not np.array_equal(order, epoch_order(seed, epoch + 1, num_images))
        assert not np.array_equal(order, epoch_order(seed + 1, epoch, num_images))


# Readers of files: what was written, or one error

KEYS = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
LEAF = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | KEYS
)
BRANCH = LEAF | st.lists(LEAF, max_size=3) | st.dictionaries(KEYS, LEAF, max_size=3)
JSON = BRANCH | st.lists(BRANCH, max_size=3)
NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
SHAPES = st.lists(st.integers(0, 3), max_size=3)
DTYPES = st.sampled_from([torch.float32, torch.float64, torch.int64, torch.uint8, torch.bfloat16])


@st.composite
def tensors(draw: st.DrawFn) -> dict[str, torch.Tensor]:
    names = draw(st.sets(NAMES.filter(lambda name: name != "__metadata__"), max_size=4))
    return {
        name: torch.arange(math.prod(shape := draw(SHAPES))).reshape(shape).to(draw(DTYPES))
        for name in names
    }


KIND = {"format_name": "test", "version": 1}


@quick(60)
@given(
    written=tensors(),
    facts=st.dictionaries(
        NAMES.filter(lambda name: name not in ("format", "format_version", "sha256")),
        JSON,
        max_size=3,
    ),
)
def test_any_tensors_and_facts_come_back_from_their_file(
    written: dict[str, torch.Tensor], facts: dict[str, Any], tmp_path: Path
) -> None:
    write_tensors(tmp_path / "t", written, facts, **KIND)
    read = read_tensors(tmp_path / "t", **KIND)
    assert read.metadata == json.loads(json.dumps(facts))
    assert read.tensors.keys() == written.keys()
    for name, tensor in written.items():
        assert read.tensors[name].dtype == tensor.dtype
        assert torch.equal(read.tensors[name], tensor)


def mutated(content: bytes, generator: random.Random) -> bytes:
    """Bytes cut out, put in, or put over, at one to three places."""
    for _ in range(generator.randint(1, 3)):
        # Headers come first, so that is where most is damaged.
        start = int(generator.random() ** 2 * len(content))
        put_in = generator.randbytes(generator.randint(0, 12))
        content = content[:start] + put_in + content[start + generator.randint(0, 12) :]
    return content


def npy_file() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.arange(12, dtype=np.float32).reshape(3, 4))
    return buffer.getvalue()


def tensor_file() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t"
        write_tensors(path, {"a": torch.arange(4.0), "b": torch.ones(())}, {"x": [1]}, **KIND)
        return path.read_bytes()


def bundle_file(name: str) -> bytes:
    values = np.ones((1, 2), np.float32)
    case = GoldenCase("encoder.onnx", {"image": values}, {"mean": values}, {"mean": 1e-4})
    signature = {"inputs": [{"name": "image"}], "outputs": [{"name": "mean"}]}
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder)
        write_golden(bundle, [case])
        facts = {
            "opset": 20,
            "ir_version": 10,
            "graphs": {"encoder.onnx": signature, "decoder.onnx": signature},
            "source": {"model_sha256": "a", "svm_sha256": None},
        }
        write_manifest(bundle, facts)
        return (bundle / name).read_bytes()


def metrics_file() -> bytes:
    row = {f"{name}_{part}": 1.5 for name in ("train", "test") for part in PARTS}
    return b"".join(
        json.dumps({"epoch": epoch, **row, "seconds": 2.0}).encode() + b"\n" for epoch in range(3)
    )


PARTS = ("loss", "reconstruction", "kl")


def read_a_bundle(path: Path) -> None:
    require_intact(path.parent, read_manifest(path.parent))


READERS: dict[str, tuple[str, bytes, Callable[[Path], object]]] = {
    "safetensors": ("t", tensor_file(), lambda path: read_tensors(path, **KIND)),
    "npy": ("a.npy", npy_file(), lambda path: read_npy(path, np.float32, 2)),
    "svm": ("svm.safetensors", tensor_file(), read_table),
    "manifest": ("manifest.json", bundle_file("manifest.json"), read_a_bundle),
    "golden": ("golden.json", bundle_file("golden.json"), lambda path: read_golden(path.parent)),
    "metrics": (
        "metrics.jsonl",
        metrics_file(),
        lambda path: Run(path.parent).metrics,
    ),
    "environment": (
        "environment.json",
        b'[{"time": "2026-01-01"}]',
        lambda path: Run(path.parent).environment,
    ),
}


def read_or_refuse(name: str, content: bytes, tmp_path: Path) -> None:
    """Whatever else is raised is a fault of the reader."""
    file_name, _, read = READERS[name]
    (tmp_path / file_name).write_bytes(content)
    try:
        read(tmp_path / file_name)
    except UserError as error:
        said = str(error)
        assert str(tmp_path) in said
    except Damaged as damage:
        said = str(damage)
    else:
        return
    assert len(said) < 2000


@pytest.mark.parametrize(
    "times",
    [
        pytest.param(60, marks=pytest.mark.injects(14, times=60)),
        pytest.param(2000, marks=[pytest.mark.faults, pytest.mark.injects(14, times=2000)]),
    ],
)
@pytest.mark.parametrize("name", READERS)
def test_a_file_changed_anywhere_is_read_or_refused(name: str, times: int, tmp_path: Path) -> None:
    generator = random.Random(0)
    for _ in range(times):
        read_or_refuse(name, mutated(READERS[name][1], generator), tmp_path)


@pytest.mark.injects(14, times=30)
@pytest.mark.parametrize("name", READERS)
@quick(30)
@given(content=st.binary(max_size=300) | JSON.map(json.dumps).map(str.encode))
def test_any_bytes_are_read_or_refused(name: str, content: bytes, tmp_path: Path) -> None:
    read_or_refuse(name, content, tmp_path)


@pytest.mark.injects(14, times=80)
@pytest.mark.parametrize("name", ["safetensors", "svm"])
@quick(80)
@given(
    header=st.dictionaries(
        NAMES | st.just("__metadata__"),
        JSON
        | st.fixed_dictionaries(
            {
                "dtype": st.sampled_from(["F32", "BF16", "I64", "F8_E4M3", "F4", "C64", "X"]),
                "shape": st.lists(st.integers(-1, 4) | st.integers(), max_size=3),
                "data_offsets": st.lists(st.integers(0, 16) | st.integers(), max_size=3),
            }
        ),
        max_size=3,
    ),
    length=st.none() | st.integers(0, 2**64 - 1),
    data=st.binary(max_size=16),
)
def test_any_header_of_tensors_is_read_or_refused(
    name: str, header: dict[str, Any], length: int | None, data: bytes, tmp_path: Path
) -> None:
    text = json.dumps(header).encode()
    size = len(text) if length is None else length
    read_or_refuse(name, struct.pack("<Q", size) + text + data, tmp_path)


@pytest.mark.injects(15, times=100)
@quick(100)
@given(
    facts=st.fixed_dictionaries(
        {
            "format": st.just("vaekit-bundle"),
            "format_version": st.just(1),
            "opset": st.just(20) | JSON,
            "ir_version": st.just(10) | JSON,
            "graphs": st.dictionaries(st.sampled_from(["encoder.onnx", "x"]), JSON) | JSON,
            "source": st.fixed_dictionaries({"model_sha256": JSON, "svm_sha256": JSON}) | JSON,
            "files": st.dictionaries(NAMES, st.fixed_dictionaries({"sha256": JSON}) | JSON) | JSON,
        }
    )
)
def test_any_manifest_whose_hash_fits_is_read_or_refused(
    facts: dict[str, Any], tmp_path: Path
) -> None:
    write_sealed(tmp_path / "manifest.json", facts)
    read_or_refuse("manifest", (tmp_path / "manifest.json").read_bytes(), tmp_path)
