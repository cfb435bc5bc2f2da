"""cuML is taken where it fits an SVM, and nowhere else; what keeps it from that is said."""

import json
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from cuml_helpers import DeviceSVC, UnusableSVC, play_cuml

from vaekit.cli import main
from vaekit.errors import UserError
from vaekit.svm import backend as svm_backend
from vaekit.svm.backend import choose_backend


def assert_not_cuml(reason: str) -> None:
    """auto takes scikit-learn and says why; a demanded cuML is refused with the same words."""
    assert choose_backend("auto") == ("sklearn", f"not cuML: {reason}")
    with pytest.raises(UserError) as refusal:
        choose_backend("cuml")
    assert str(refusal.value) == f"--backend cuml: {reason}; --backend sklearn fits on the CPU"


@pytest.mark.parametrize("flag", ["auto", "cuml"])
def test_a_cuml_that_fits_an_svm_is_taken(flag: str, monkeypatch: pytest.MonkeyPatch) -> None:
    play_cuml(monkeypatch)
    assert choose_backend(flag) == ("cuml", "on a fast GPU")  # type: ignore[arg-type]


@pytest.mark.injects(17)
def test_without_a_gpu_cuml_is_not_even_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    play_cuml(monkeypatch)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(DeviceSVC, "num_fits", 0)
    assert_not_cuml("there is no CUDA device")
    assert DeviceSVC.num_fits == 0


@pytest.mark.parametrize("missing", ["cuml", "cupy"])
@pytest.mark.injects(17)
def test_a_package_that_is_not_installed_is_named(
    missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    play_cuml(monkeypatch)
    monkeypatch.setattr(
        svm_backend, "find_spec", lambda name: None if name == missing else find_spec(name)
    )
    assert_not_cuml(f"the Python package {missing} is not installed")


@pytest.mark.injects(17)
def test_a_cuml_that_cannot_fit_here_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    play_cuml(monkeypatch, UnusableSVC)
    assert_not_cuml(
        "cuML does not work here, CUDARuntimeError: cudaErrorInsufficientDriver: CUDA driver "
        "version is insufficient"
    )


@pytest.mark.injects(17)
def test_an_installation_that_cannot_be_loaded_is_not_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    play_cuml(monkeypatch)
    monkeypatch.delitem(sys.modules, "cuml.svm")
    assert_not_cuml(
        "cuML does not work here, ModuleNotFoundError: No module named 'cuml.svm'; 'cuml' is not "
        "a package"
    )


def test_a_fault_in_how_cuml_is_called_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    play_cuml(monkeypatch, svc=object)  # takes no C
    with pytest.raises(TypeError):
        choose_backend("auto")


def test_a_demanded_scikit_learn_asks_for_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    play_cuml(monkeypatch)
    assert choose_backend("sklearn") == ("sklearn", "as told by --backend")


@pytest.mark.injects(17)
def test_with_a_cuml_that_cannot_fit_here_auto_fits_the_same_svm_and_says_why(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    play_cuml(monkeypatch, UnusableSVC)
    before = (run / "svm" / "svm.safetensors").read_bytes()
    main(["svm", str(run)])
    assert "with scikit-learn (not cuML: cuML does not work here, CUDARuntimeError: cuda" in (
        capsys.readouterr().out
    )
    assert json.loads((run / "svm" / "metrics.json").read_text())["backend"] == "scikit-learn"
    assert (run / "svm" / "svm.safetensors").read_bytes() == before


@pytest.mark.injects(17)
def test_a_demanded_cuml_that_cannot_fit_here_is_one_line_and_leaves_the_old_svm(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    play_cuml(monkeypatch, UnusableSVC)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with pytest.raises(SystemExit) as stop:
        main(["svm", str(run), "--backend", "cuml"])
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("vaekit: error: --backend cuml: cuML does not work here, CUDARuntimeErr")
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


@pytest.mark.slow
@pytest.mark.injects(17)
def test_cuml_in_the_environment_of_a_machine_without_a_gpu_is_left_alone(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its import would take seconds, succeed, and print warnings."""
    for name in ("cuml", "cupy"):
        (tmp_path / "site" / name).mkdir(parents=True)
        (tmp_path / "site" / name / "__init__.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    main(["svm", str(run)])
    assert "with scikit-learn (not cuML: there is no CUDA device)" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stop:
        main(["svm", str(run), "--backend", "cuml"])
    assert stop.value.code == 2
    assert "--backend cuml: there is no CUDA device" in capsys.readouterr().err


@pytest.mark.parametrize("broken_off", [False, True])
def test_latents_that_are_missing_are_made_first(
    broken_off: bool, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.read_bytes() for path in run.rglob("*.*") if path.is_file()}
    if broken_off:
        (run / "latents" / "latents.json").unlink()
        (run / "latents" / "test_labels.npy").write_bytes(b"half of")
    else:
        shutil.rmtree(run / "latents")
    main(["svm", str(run)])
    assert "no latents yet" in capsys.readouterr().out
    for path in (*(run / "latents").iterdir(), run / "svm" / "svm.safetensors"):
        assert path.read_bytes() == before[path]


@pytest.mark.slow
def test_latents_that_are_made_first_get_to_cuml_without_a_copy_and_give_the_same_svm(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = play_cuml(monkeypatch)
    main(["svm", str(run), "--backend", "cuml"])
    of_file = (run / "svm" / "svm.safetensors").read_bytes()
    assert not any(isinstance(rows, torch.Tensor) for rows in given)
    given.clear()
    shutil.rmtree(run / "latents")
    main(["svm", str(run), "--backend", "cuml"])
    on_device = [rows for rows in given if isinstance(rows, torch.Tensor)]
    assert len(on_device) == 10
    assert {rows.dtype for rows in on_device} == {torch.float32}
    assert (run / "svm" / "svm.safetensors").read_bytes() == of_file
