"""Progress is a bar on a terminal and plain lines elsewhere."""

import pytest

from vaekit import progress
from vaekit.progress import Progress


class Clock:
    """Stands in for the time module; a test moves it on."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def test_without_a_terminal_a_line_appears_now_and_then(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with Progress("training", total=2000, unit="images", done=500) as bar:
        clock.now = 10
        bar.advance(100, "epoch 1/2, loss 3.00")
        assert capsys.readouterr().out == ""
        clock.now = 40
        bar.advance(300, "epoch 1/2, loss 2.00")
    assert capsys.readouterr().out == (
        "training epoch 1/2, loss 2.00  900 of 2,000 images, 10 a second, 1:50 left\n"
    )


def test_on_a_terminal_it_is_a_bar_with_the_note(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with Progress("training", total=100, unit="images") as bar:
        bar.advance(100, "loss 2.00")
        bar.line("a line above it")
    captured = capsys.readouterr()
    assert "training loss 2.00" in captured.err
    assert "100/100 " in captured.err
    assert captured.out == "a line above it\n"


def test_only_the_visible_one_says_anything(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with Progress("training", total=100, unit="images", visible=False) as bar:
        clock.now = 100
        bar.advance(50)
        bar.line("a line")
    captured = capsys.readouterr()
    assert captured.out + captured.err == ""
