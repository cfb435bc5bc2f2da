"""How far long work has come: a bar on a terminal, plain lines elsewhere."""

import sys
import time
from typing import Self

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 30.0


class Progress:
    """Counts items done out of `total`, with their rate and the time left.

    `done` is what earlier starts did already. Only a `visible` one shows anything: with several
    processes, that of the main one. Where lines are no result, as those of work on the way to one,
    they go to standard error.
    """

    def __init__(
        self,
        what: str,
        total: int,
        unit: str,
        *,
        done: int = 0,
        visible: bool = True,
        is_result: bool = True,
    ):
        self._what, self._total, self._unit = what, total, unit
        self._first = self._done = done
        self._visible, self._is_result = visible, is_result
        self._started = self._last_line = time.monotonic()
        on_terminal = visible and sys.stderr.isatty()
        self._bar = (
            tqdm(total=total, initial=done, unit=f" {unit}", unit_scale=True)
            if on_terminal
            else None
        )

    def advance(self, count: int, note: str = "") -> None:
        """Count items as done; `note` says what is known of them, as a loss."""
        self._done += count
        if self._bar is not None:
            self._bar.set_description_str(f"{self._what} {note}".strip(), refresh=False)
            self._bar.update(count)
        elif self._visible and time.monotonic() - self._last_line > SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            rate = (self._done - self._first) / (self._last_line - self._started)
            minutes, seconds = divmod(round((self._total - self._done) / rate), 60)
            self.line(
                f"{self._what} {note}  {self._done:,} of {self._total:,} {self._unit}, "
                f"{rate:,.0f} a second, {minutes}:{seconds:02d} left"
            )

    def line(self, text: str) -> None:
        """Print a line of its own, above the bar."""
        if self._bar is not None:
            self._bar.write(text)
        elif self._visible:
            print(text, file=sys.stdout if self._is_result else sys.stderr, flush=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()
