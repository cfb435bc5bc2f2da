"""A run is a function of its config: what it computes, what it leaves, how it resumes."""

import dataclasses
import json
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY_FLAGS, run_command, tiny_config
from kill_helpers import assert_same_result, finish, start
from PIL import Image
from rank_helpers import train_in_ranks
from safetensors.torch import load_file
from torch.nn.utils import parameters_to_vector

from vaekit import train as train_module
from vaekit.config import DataConfig, ModelConfig, TrainConfig
from vaekit.errors import UserError
from vaekit.images.sets import load_images
from vaekit.models.vae import VAE
from vaekit.runs.folder import RunFolder
from vaekit.runs.run import Run
from vaekit.train import train
from vaekit.training import step as step_module
from vaekit.training.noise import Stream, epoch_order, normal_noise, stream_seed
from vaekit.training.step import Stepper, learning_rate

CPU = torch.device("cpu")


def largest_difference(one: Path, other: Path) -> float:
    """Between the weights of two runs."""
    first, second = load_file(one / "model.safetensors"), load_file(other / "model.safetensors")
    assert first.keys() == second.keys()
    return max(float((first[name] - second[name]).abs().max()) for name in first)


def losses_of(run: Path) -> list[dict[str, float]]:
    return [
        {key: value for key, value in row.items() if "loss" in key and value is not None}
        for row in Run(run).metrics
    ]


def test_a_run_leaves_the_whole_run_folder(finished_run: Path) -> None:
    for name in (
        "config.yaml",
        "environment.json",
        "images.json",
        "metrics.jsonl",
        "checkpoints/step-00000006.safetensors",
        "checkpoints/step-00000012.safetensors",
        "model.safetensors",
        "baselines/baselines.json",
        "samples/epoch-000.png",
        "samples/epoch-001.png",
        "samples/epoch-002.png",
        "reconstructions/epoch-002.png",
        "latents/train_latents.npy",
        "latents/test_labels.npy",
        "latents/index.parquet",
        "latents/latents.json",
        "svm/svm.safetensors",
        "svm/config.yaml",
        "svm/metrics.json",
        "report.html",
    ):
        assert (finished_run / name).stat().st_size > 0, name
    assert not list(finished_run.rglob(".tmp*"))
    assert not list(finished_run.rglob("*.p*kl"))


def test_metrics_have_a_row_an_epoch_and_one_before_training(finished_run: Path) -> None:
    rows = Run(finished_run).metrics
    assert [(row["epoch"], row["step"]) for row in rows] == [(0, 0), (1, 6), (2, 12)]
    assert rows[0]["train_loss"] is None
    for row in rows:
        assert row["test_loss"] == pytest.approx(row["test_reconstruction"] + row["test_kl"])
    assert rows[1]["learning_rate"] == pytest.approx(0.5e-3)
    assert "final_train_loss" not in rows[1]
    assert rows[2]["images_per_second"] > 0


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"augment": True}, ", augmented"),
        (
            {"augment_share": 0.25, "augment_until": 0.5},
            ", augmented (25 % of them, until 50 % of the run)",
        ),
        ({"augment": False}, ""),
    ],
)
def test_a_run_says_at_its_start_whether_it_augments_its_images(
    settings: dict[str, float], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(tiny_config(tmp_path / "run", epochs=1, **settings))
    assert f"96 images in batches of 16{said}, 6 steps an epoch" in capsys.readouterr().out


def test_the_environment_is_recorded_at_every_start(finished_run: Path) -> None:
    (facts,) = json.loads((finished_run / "environment.json").read_text())
    assert facts["versions"]["torch"] == torch.__version__.split("+")[0]
    assert facts["execution_path"] == "eager"
    assert facts["mixed_precision"] == "no"
    assert facts["num_processes"] == 1


def test_the_test_loss_is_that_of_the_saved_weights_over_the_whole_test_set(
    finished_run: Path,
) -> None:
    run = RunFolder(finished_run)
    config, vae, last = run.require_config(), Run(run.path).weights.vae, Run(run.path).metrics[-1]
    images = load_images(config.data, config.seed)
    for prefix, image_set in (("test_", images.test), ("final_train_", images.train)):
        pixels = torch.from_numpy(image_set.pixels / np.float32(255))
        noise = normal_noise((len(pixels), 3), config.seed, Stream.EVALUATION, 0, CPU)
        elbo = vae.elbo(pixels, noise)
        assert last[f"{prefix}loss"] == pytest.approx(elbo.loss.mean().item(), rel=1e-5)
        assert last[f"{prefix}kl"] == pytest.approx(elbo.kl.mean().item(), rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("given", [{}, {"adam_beta2": 0.5}])
def test_the_steps_are_those_of_a_plain_loop_with_plain_adam(
    given: dict[str, float], tmp_path: Path
) -> None:
    config = tiny_config(
        tmp_path / "run", learning_rate=1e-3, input_noise=0.2, ema_decay=0.5, **given
    )
    train(config)
    images = load_images(config.data, config.seed)
    torch.manual_seed(stream_seed(config.seed, Stream.WEIGHTS))
    vae = VAE(config.model, images.shape)
    average = {name: tensor.clone() for name, tensor in vae.state_dict().items()}
    betas = (0.9, given.get("adam_beta2", 0.999))
    adam = torch.optim.Adam(vae.parameters(), lr=1e-3, betas=betas)
    pixels = torch.from_numpy(images.train.pixels) / 255.0
    for step in range(12):
        order = epoch_order(config.seed, step // 6 + 1, len(pixels))
        batch = pixels[order[step % 6 * 16 :][:16]]
        pixel_noise = normal_noise((16, 1, 28, 28), config.seed, Stream.INPUT, step, CPU)
        latent_noise = normal_noise((16, 3), config.seed, Stream.LATENT, step, CPU)
        output = vae(batch + 0.2 * pixel_noise, latent_noise)
        adam.param_groups[0]["lr"] = learning_rate(config, step, 12)
        adam.zero_grad()
        vae.bound(output, batch).loss.mean().backward()
        adam.step()
        decay = min(0.5, (1 + step) / (10 + step))
        for name, tensor in vae.state_dict().items():
            average[name] = decay * average[name] + (1 - decay) * tensor
    saved = load_file(tmp_path / "run" / "model.safetensors")
    for name, tensor in average.items():
        torch.testing.assert_close(saved[name], tensor, atol=1e-6, rtol=1e-5)


@pytest.mark.slow
def test_training_learns(tmp_path: Path) -> None:
    config = tiny_config(tmp_path / "run", epochs=15, learning_rate=5e-3, sample_every=15)
    train(dataclasses.replace(config, data=DataConfig(name="digits", limit=320)))
    rows = Run(tmp_path / "run").metrics
    assert rows[-1]["test_loss"] < 0.7 * rows[0]["test_loss"]
    assert rows[-1]["train_loss"] < rows[1]["train_loss"]


@pytest.mark.slow
@pytest.mark.injects(1)
def test_a_killed_run_resumed_equals_an_uninterrupted_one_bit_for_bit(tmp_path: Path) -> None:
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    to_be_killed, undisturbed = (
        tiny_config(run, epochs=30, input_noise=0.1, sample_every=30) for run in (killed, whole)
    )
    process = start(to_be_killed)
    while not (killed / "checkpoints" / "step-00000012.safetensors").exists():
        assert process.is_alive()
        time.sleep(0.01)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert len(Run(killed).metrics) < 31

    finish(to_be_killed)
    finish(undisturbed)
    assert_same_result(killed, whole)
    starts = json.loads((killed / "environment.json").read_text())
    assert starts[0]["step"] == 0
    assert starts[1]["step"] >= 12


@pytest.mark.slow
@pytest.mark.parametrize("broken_off", ["within an epoch", "between weights and checkpoint"])
@pytest.mark.injects(2)
def test_a_run_that_breaks_off_goes_back_to_its_checkpoint_and_comes_to_the_same(
    broken_off: str, finished_run: Path, tmp_path: Path
) -> None:
    advance, save_checkpoint = Stepper.advance, train_module.save_checkpoint

    def cut_off_at_step_nine(stepper: Stepper, step: int) -> None:
        if step == 8:
            raise ConnectionResetError("cut off")
        advance(stepper, step)

    def disk_full_at_the_second(folder: Path, checkpoint: object) -> None:
        if (folder / "step-00000006.safetensors").exists():
            raise OSError(28, "No space left on device")
        save_checkpoint(folder, checkpoint)

    with pytest.MonkeyPatch.context() as patch:
        if broken_off == "within an epoch":
            patch.setattr(Stepper, "advance", cut_off_at_step_nine)
        else:
            patch.setattr(train_module, "save_checkpoint", disk_full_at_the_second)
        with pytest.raises(OSError, match=r"cut off|No space left"):
            train(tiny_config(tmp_path / "run"))
    train(tiny_config(tmp_path / "run"))
    assert_same_result(tmp_path / "run", finished_run)


def test_a_finished_run_started_again_is_left_as_it_is(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.read_bytes() for path in run.rglob("*.*") if path.is_file()}
    train(tiny_config(run))
    assert "12 in all, 12 of them done" in capsys.readouterr().out
    for path, content in before.items():
        if path.name not in ("environment.json", "config.yaml"):
            assert path.read_bytes() == content, path


@pytest.mark.slow
@pytest.mark.injects(8)
def test_other_images_under_the_same_settings_are_refused_on_resume(tmp_path: Path) -> None:
    for name in ("first", "second"):
        for index in range(12):
            (tmp_path / name / "class").mkdir(parents=True, exist_ok=True)
            shade = 10 * index + (name == "second")
            Image.new("L", (9, 9), shade).save(tmp_path / name / "class" / f"{index}.png")

    def config(root: str) -> TrainConfig:
        data = DataConfig(name="folder", root=str(tmp_path / root), image_size=9)
        return tiny_config(tmp_path / "run", data=data, batch_size=4)

    train(config("first"))
    shutil.copytree(tmp_path / "first", tmp_path / "moved")
    train(config("moved"))
    before = (tmp_path / "run" / "config.yaml").read_bytes()
    assert f"root: {tmp_path / 'moved'}".encode() in before
    with pytest.raises(UserError, match=r"second: other images, labels or classes"):
        train(config("second"))
    assert (tmp_path / "run" / "config.yaml").read_bytes() == before


REFERENCE = tiny_config(Path("run")).model
CONV = ModelConfig("conv", "gaussian", 3, width=16)  # starts from components


def weights_of(vae: VAE) -> torch.Tensor:
    return parameters_to_vector(vae.parameters()).detach()


def in_one_process_and_in_two(
    folder: Path, precision: str, model: ModelConfig = REFERENCE
) -> tuple[Path, Path]:
    """The same run, computed twice, in the precision that both name."""
    name = {"no": "float32"}.get(precision, precision)
    for num_ranks in (1, 2):
        config = tiny_config(
            folder / str(num_ranks), model=model, input_noise=0.1, mixed_precision=precision
        )
        ended = train_in_ranks(config, num_ranks)
        assert ended.exit_codes == [0] * num_ranks, ended.errors
        assert f"cpu, {num_ranks} process(es), {name}" in ended.outputs[0]
    return folder / "1", folder / "2"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "tolerance"), [(REFERENCE, 1e-5), (CONV, 2e-4)], ids=["reference", "conv"]
)
def test_two_processes_give_the_weights_and_losses_of_one(
    model: ModelConfig, tolerance: float, tmp_path: Path
) -> None:
    """A norm takes most of what a bias before it does: of gradients that are next to nothing, and
    that Adam divides by their size, the rounding is seen.
    """
    one, two = in_one_process_and_in_two(tmp_path, "no", model)
    assert largest_difference(one, two) < tolerance
    for losses, others in zip(losses_of(one), losses_of(two), strict=True):
        assert losses == pytest.approx(others, rel=1e-5)


@pytest.mark.slow
def test_two_processes_give_in_bf16_what_one_gives_but_for_its_rounding(tmp_path: Path) -> None:
    """bf16 rounds by up to 2^-9, and each rank rounds the gradients of its half by itself.

    Adam divides by their size, so the runs part by a few times 2^-8 of the way that the weights
    have gone (0.005 and 0.008 were seen); 2^-5 is still half of what parts either from float32.
    """
    one, two = in_one_process_and_in_two(tmp_path, "bf16")
    config = RunFolder(one).require_config()
    torch.manual_seed(stream_seed(config.seed, Stream.WEIGHTS))
    start = weights_of(VAE(config.model, (1, 28, 28)))
    first, second = (weights_of(Run(run).weights.vae) for run in (one, two))
    assert float((first - second).norm() / (first - start).norm()) < 2**-5
    for losses, others in zip(losses_of(one), losses_of(two), strict=True):
        assert losses == pytest.approx(others, rel=1e-4)


@pytest.mark.slow
def test_gradients_exchanged_in_bf16_are_rounded_and_train_as_well(
    finished_run: Path, tmp_path: Path
) -> None:
    """In float32 two processes give what one does."""
    ended = train_in_ranks(tiny_config(tmp_path / "run", gradient_exchange="bf16"), 2)
    assert ended.exit_codes == [0, 0], ended.errors
    assert 1e-5 < largest_difference(finished_run, tmp_path / "run") < 0.1
    one, other = (losses_of(run)[-1]["test_loss"] for run in (finished_run, tmp_path / "run"))
    assert one == pytest.approx(other, rel=0.01)


@pytest.mark.slow
def test_accelerate_launch_works_without_a_config_file(tmp_path: Path) -> None:
    command = ["accelerate", "launch", "vaekit/train.py", *TINY_FLAGS, "--run", tmp_path / "run"]
    result = run_command(command)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "run" / "model.safetensors").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("any_precision")
def test_bf16_trains_to_about_the_same_loss(finished_run: Path, tmp_path: Path) -> None:
    train(tiny_config(tmp_path / "run", mixed_precision="bf16"))
    one, other = (losses_of(run)[-1]["test_loss"] for run in (finished_run, tmp_path / "run"))
    assert one != other
    assert one == pytest.approx(other, rel=0.01)


@pytest.mark.slow
@pytest.mark.injects(10)
def test_a_non_finite_loss_stops_training_and_names_the_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config(tmp_path / "run")
    advance = Stepper.advance

    def infinite_at_step_nine(stepper: Stepper, step: int) -> None:
        with pytest.MonkeyPatch.context() as patch:
            if step == 8:
                patch.setattr(step_module, "as_floats", lambda pixels: pixels * float("inf"))
            advance(stepper, step)

    monkeypatch.setattr(Stepper, "advance", infinite_at_step_nine)
    with pytest.raises(UserError, match=r"not finite at step 9 \(epoch 2\).*checkpoint"):
        train(config)
    kept = [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()]
    assert kept == ["step-00000006.safetensors"]
    assert [row["step"] for row in Run(tmp_path / "run").metrics] == [0, 6]


@pytest.mark.slow
def test_a_batch_that_the_processes_cannot_share_is_refused(tmp_path: Path) -> None:
    ended = train_in_ranks(tiny_config(tmp_path / "run", batch_size=15), 2)
    assert ended.exit_codes == [2, 2]
    for errors in ended.errors:
        assert "--batch_size 15: it is the global one and must be divisible by the 2 proc" in errors
    assert not (tmp_path / "run").exists()
