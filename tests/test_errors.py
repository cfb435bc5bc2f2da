"""What is no bug of ours is one line; what is one keeps its traceback."""

import pytest

from vaekit.errors import UserError, say, some_of, user_errors_in_one_line


def stopped_by(error: BaseException) -> int:
    with pytest.raises(SystemExit) as stop, user_errors_in_one_line():
        raise error
    assert isinstance(stop.value.code, int)
    return stop.value.code


def test_a_users_mistake_is_one_line_and_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert stopped_by(UserError("--epochs 0:\n  expected more")) == 2
    assert capsys.readouterr().err == "vaekit: error: --epochs 0: expected more\n"


def test_a_file_that_the_system_refuses_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert stopped_by(PermissionError(13, "Permission denied", "runs/x")) == 2
    assert capsys.readouterr().err.startswith("vaekit: error: runs/x: Permission denied; check")


def test_ctrl_c_is_one_line_and_code_130(capsys: pytest.CaptureFixture[str]) -> None:
    assert stopped_by(KeyboardInterrupt()) == 130
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize("error", [ValueError("a bug"), OSError("without a file")])
def test_a_bug_keeps_its_traceback(error: Exception) -> None:
    with pytest.raises(type(error)), user_errors_in_one_line():
        raise error


def test_a_long_list_is_cut_and_counted() -> None:
    assert some_of(["a", "b", "c", "d", "e"]) == "a, b, c, d, e"
    assert some_of(["a", "b", "c", "d", "e", "f"]) == "a, b, c, d, e, ... (6 in all)"


def test_messages_leave_standard_output_to_results(capsys: pytest.CaptureFixture[str]) -> None:
    say("decoding")
    assert capsys.readouterr() == ("", "vaekit: decoding\n")


@pytest.mark.parametrize(
    ("as_flags", "in_words"),
    [
        ("--epochs 0: expected more", "epochs 0: expected more"),
        ("give --data.root DIR (--data.limit)", "give data.root DIR (data.limit)"),
        ("make it with `vaekit train --run runs/x`", "make it with `vaekit train --run runs/x`"),
        ("--run /a--b: 3--4 -- five, --C", "run /a--b: 3--4 -- five, C"),
    ],
)
def test_python_is_told_of_settings_and_a_command_of_flags(
    as_flags: str, in_words: str, in_python: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert str(UserError(as_flags)) == in_words
    say(as_flags)
    assert stopped_by(UserError(as_flags)) == 2
    assert capsys.readouterr().err == f"vaekit: {in_words}\nvaekit: error: {as_flags}\n"
    assert str(UserError(as_flags)) == in_words
