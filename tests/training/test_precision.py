"""Precision is chosen from the hardware, and an explicit flag is obeyed."""

from pathlib import Path

import pytest
import torch
from conftest import TINY_FLAGS, launch

from vaekit.errors import UserError
from vaekit.training.precision import choose_precision, convolves_in_tf32, without_tf32


@pytest.fixture
def hardware(monkeypatch: pytest.MonkeyPatch) -> "Hardware":
    return Hardware(monkeypatch)


class Hardware:
    """A machine that is not there."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        self.cpu()

    def cpu(self, **capabilities: bool) -> None:
        self._monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        self._monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
        self._monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)

    def gpu(self, *, bf16: bool) -> None:
        self._monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        self._monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
        self._monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: bf16)

    def launcher(self, precision: str) -> None:
        self._monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", precision)


def test_auto_follows_the_launcher_where_the_hardware_is_native(hardware: Hardware) -> None:
    hardware.launcher("bf16")
    hardware.gpu(bf16=True)
    assert choose_precision("auto") == "bf16"
    hardware.cpu(avx512_bf16=True)
    assert choose_precision("auto") == "bf16"
    hardware.launcher("fp16")
    hardware.gpu(bf16=False)
    assert choose_precision("auto") == "fp16"


def test_auto_uses_float32_elsewhere_and_says_so(
    hardware: Hardware, capsys: pytest.CaptureFixture[str]
) -> None:
    assert choose_precision("auto") == "no"
    assert capsys.readouterr().err == ""
    hardware.launcher("bf16")
    assert choose_precision("auto") == "no"
    assert "asks for bf16, which this device only emulates: using float32" in (
        capsys.readouterr().err
    )


def test_an_explicit_flag_wins_over_the_launcher_with_a_warning_where_it_is_slow(
    hardware: Hardware, capsys: pytest.CaptureFixture[str]
) -> None:
    hardware.launcher("bf16")
    assert choose_precision("no") == "no"
    assert capsys.readouterr().err == ""
    assert choose_precision("bf16") == "bf16"
    assert "only emulates bf16, which is slow" in capsys.readouterr().err


def test_fp16_without_a_gpu_is_refused(hardware: Hardware) -> None:
    with pytest.raises(UserError, match="--mixed_precision fp16: needs a GPU; give no, or auto"):
        choose_precision("fp16")


def test_a_gpu_convolves_in_float32_while_told_to() -> None:
    gpu = torch.device("cuda")
    assert convolves_in_tf32(gpu)
    assert not convolves_in_tf32(torch.device("cpu"))
    with without_tf32():
        with without_tf32():
            assert not convolves_in_tf32(gpu)
        assert not convolves_in_tf32(gpu)
    assert convolves_in_tf32(gpu)
    assert torch.backends.cudnn.allow_tf32  # raises where the older and the newer flags disagree


@pytest.mark.slow
@pytest.mark.parametrize(("is_native", "precision"), [(True, "bf16"), (False, "float32")])
def test_auto_trains_as_the_launcher_s_config_file_says_where_that_is_native(
    is_native: bool, precision: str, tmp_path: Path
) -> None:
    script = tmp_path / "train.py"
    script.write_text(
        "from vaekit.cli import main; from vaekit.training import precision; "
        f"precision.is_native = lambda precision: {is_native}; main()"
    )
    flags = [*TINY_FLAGS, "--mixed_precision", "auto", "--run", tmp_path / "run"]
    result = launch(1, script, "train", *flags)
    assert result.returncode == 0, result.stderr
    assert f"cpu, 1 process(es), {precision}" in result.stdout
