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
