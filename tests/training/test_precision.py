"""Precision is chosen from the hardware, and an explicit flag is obeyed."""

import re
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from conftest import TINY_FLAGS, launch

from vaekit.cli import main
from vaekit.errors import UserError
from vaekit.runs.folder import RunFolder
from vaekit.training import precision as precision_module
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


@pytest.mark.parametrize("launcher", ["no", "bf16", "fp16"])
def test_auto_is_what_the_hardware_is_best_at_with_any_launcher(
    launcher: str, hardware: Hardware, capsys: pytest.CaptureFixture[str]
) -> None:
    hardware.launcher(launcher)
    hardware.gpu(bf16=True)
    chosen = [choose_precision("auto")]
    hardware.gpu(bf16=False)
    chosen.append(choose_precision("auto"))
    for capabilities in ({"amx_bf16": True}, {"avx512_bf16": True}, {}):
        hardware.cpu(**capabilities)
        chosen.append(choose_precision("auto"))
    assert chosen == ["bf16", "no", "no", "no", "no"]
    said = capsys.readouterr().err.splitlines()
    assert len(said) == {"no": 0, "bf16": 4, "fp16": 5}[launcher]
    assert all(f"the launcher asks for {launcher}: using " in line for line in said)


def test_an_explicit_flag_wins_over_the_launcher_with_a_warning_where_it_is_slow(
    hardware: Hardware, capsys: pytest.CaptureFixture[str]
) -> None:
    hardware.launcher("bf16")
    assert choose_precision("no") == "no"
    assert capsys.readouterr().err == ""
    assert choose_precision("bf16") == "bf16"
    assert "only emulates bf16, which is slower" in capsys.readouterr().err


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


# Trains in every precision that the hardware may offer, in a process that a launcher started.
OFFERED = {"bf16": "bf16", "no": "float32"}
LAUNCHED = f"""
import sys
from accelerate.state import AcceleratorState
from vaekit.cli import main
from vaekit.training import precision

for name in {[*OFFERED]}:
    AcceleratorState._reset_state()  # it keeps a precision for a whole process
    precision.auto_precision = lambda: name
    main([*sys.argv[1:], "--run", f"launched-{{name}}"])
"""


@pytest.mark.slow
@pytest.mark.usefixtures("any_precision")
def test_auto_trains_alike_with_and_without_a_launcher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("train.py").write_text(LAUNCHED)
    flags = [*TINY_FLAGS, "--mixed_precision", "auto"]
    launched = launch(1, tmp_path / "train.py", "train", *flags, cwd=tmp_path)
    assert launched.returncode == 0, launched.stderr
    for precision in OFFERED:
        AcceleratorState._reset_state()
        monkeypatch.setattr(precision_module, "auto_precision", lambda auto=precision: auto)
        main(["train", *flags, "--run", f"alone-{precision}"])
    alone = capsys.readouterr()
    for out, errors in ((launched.stdout, launched.stderr), (alone.out, alone.err)):
        assert re.findall(r"cpu, 1 process\(es\), (\w+)", out) == [*OFFERED.values()]
        assert "asks for" not in errors
    for precision in OFFERED:
        for name in ("launched", "alone"):
            config = RunFolder(Path(f"{name}-{precision}")).require_config()
            assert config.mixed_precision == precision
