"""The command line answers at once, and says in one line what is wrong."""

import runpy
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from conftest import ROOT, TINY_FLAGS, assert_one_line_error, run_command

from vaekit.cli import COMMANDS, main


def test_help_names_every_command_and_imports_no_torch() -> None:
    code = "import sys; from vaekit.cli import main\ntry: main(['--help'])\nfinally: "
    code += "print('torch imported:', 'torch' in sys.modules)"
    result = run_command([sys.executable, "-c", code])
    assert result.returncode == 0, result.stderr
    assert "torch imported: False" in result.stdout
    for command in COMMANDS:
        assert command in result.stdout


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    help_text = capsys.readouterr().out
    assert "usage: vaekit" in help_text
    assert f" example: vaekit {command} " in " ".join(help_text.split())


def test_help_shows_the_way_from_images_to_a_bundle_on_one_screen(
    capsys: pytest.CaptureFixture[str],
) -> None:
    main(["--help"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 30
    assert max(map(len, lines)) <= 100
    way = [line.split()[1] for line in lines if line.startswith("  vaekit ")]
    assert way == ["train", "latents", "svm", "report", "export"]


def test_a_shell_completes_verbs_and_flags(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--print_completion", "shtab-bash"])
    assert stop.value.code == 0
    (tmp_path / "complete.sh").write_text(capsys.readouterr().out)
    ask = (
        "source complete.sh; COMP_WORDS=(vaekit svm --b); COMP_CWORD=2; "
        "$(complete -p vaekit | grep -o '_shtab[a-z_]*'); echo ${COMPREPLY[@]}"
    )
    assert run_command(["bash", "-c", ask], cwd=tmp_path).stdout.split() == ["--backend"]


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out.split() == ["vaekit", version("vaekit")]


def test_print_config_shows_the_effective_settings(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train", "--epochs", "7", "--print_config"])
    out = capsys.readouterr().out
    assert "epochs: 7" in out
    assert "latent_dim: auto" in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["bake"], "invalid choice: 'bake'"),
        ([], "to be one of {train,latents,svm"),
        (["train", "--epoch", "3"], "--epoch"),
        (["train", "--data.name", "imagenet"], "'fashion-mnist'"),
        (["svm", "runs/x", "--C", "0"], "--C 0.0: expected a finite number above 0"),
        (["svm", "runs/x", "--log_variances", "0"], "--log_variances 0.0: expected a finite num"),
        (["svm", "runs/x", "--jobs", "0"], "--jobs 0: expected at least 1"),
        (["svm", "runs/x", "--max_train", "1"], "--max_train 1: expected at least 2"),
        (["svm", "runs/x", "--backend", "gpu"], "'auto', 'sklearn', 'cuml'"),
        (["predict", "runs/x"], "predict.images"),
        (["latents"], "latents.run"),
        (["doctor", "--run", "runs/x"], "--run"),
        (["doctor", "runs/none"], "runs/none: not a run folder (no config.yaml)"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_exit_code_2(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("vaekit: error: ")
    assert len(error.splitlines()) == 1
    assert words in error


@pytest.mark.slow
def test_the_worker_reports_a_bad_argument_like_the_command_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = str(ROOT / "vaekit" / "train.py")
    for arguments in (["--epochs", "-1"], ["--bogus", "1"]):
        monkeypatch.setattr(sys, "argv", [script, *arguments])
        with pytest.raises(SystemExit) as stop:
            runpy.run_path(script, run_name="__main__")
        assert stop.value.code == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("vaekit: error: ")
        assert arguments[0] in line


@pytest.mark.slow
def test_python_m_vaekit_is_the_command_line() -> None:
    result = run_command([sys.executable, "-m", "vaekit", "train", *TINY_FLAGS, "--print_config"])
    assert (result.returncode, result.stderr) == (0, "")
    assert "limit: 96" in result.stdout


@pytest.mark.parametrize(
    ("module", "package", "arguments"),
    [
        ("yaml", "pyyaml", ["train", "--help"]),
        ("jsonargparse", "jsonargparse", ["export", "--check", "bundle"]),
        pytest.param("onnx", "onnx", ["export", "--check", "bundle"], marks=pytest.mark.slow),
        pytest.param("numpy", "numpy", ["explore", "run"], marks=pytest.mark.slow),
        pytest.param("torch", "torch", ["export", "run"], marks=pytest.mark.slow),
        pytest.param("sklearn", "scikit-learn", ["svm", "run"], marks=pytest.mark.slow),
    ],
)
def test_a_package_that_is_missing_is_named_in_one_line(
    module: str, package: str, arguments: list[str]
) -> None:
    code = f"import sys; sys.modules[{module!r}] = None; from vaekit.cli import main; main()"
    result = run_command([sys.executable, "-c", code, *arguments])
    expected = f"the Python package {package} is not installed"
    assert_one_line_error(
        result, expected, "pip install onnx onnxruntime numpy pyyaml jsonargparse"
    )
