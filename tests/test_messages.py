"""Messages: short however long the list, and apart from results."""

import pytest

from vaekit.messages import say, some_of


def test_a_long_list_is_cut_and_counted() -> None:
    assert some_of(["a", "b", "c", "d", "e"]) == "a, b, c, d, e"
    assert some_of(["a", "b", "c", "d", "e", "f"]) == "a, b, c, d, e, ... (6 in all)"


def test_messages_leave_standard_output_to_results(capsys: pytest.CaptureFixture[str]) -> None:
    say("decoding")
    assert capsys.readouterr() == ("", "vaekit: decoding\n")
