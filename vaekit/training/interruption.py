"""Being asked to stop: SIGTERM, Ctrl-C, or the death of the launcher."""

import os
import signal
import threading
import time
from types import FrameType
from typing import Any, Self

SIGNALS = (signal.SIGTERM, signal.SIGINT)

# A launcher passes on the Ctrl-C that the terminal has already sent to its children.
SAME_REQUEST = 1.0  # seconds within which a second signal is taken for the first one's echo


class Interrupted(Exception):  # noqa: N818 - nothing is wrong
    """All processes have agreed to stop, between two steps."""

    def __init__(self, exit_code: int) -> None:
        super().__init__(exit_code)
        self.exit_code = exit_code


class Interruption:
    """While entered, a first signal is noted for the loop to act on, and a second one kills."""

    def __init__(self) -> None:
        self._signal: int | None = None
        self._noticed = 0.0
        self._launcher = os.getppid() if _is_launched() else None
        self._before: dict[int, Any] = {}

    @property
    def exit_code(self) -> int:
        """128 and the number of the signal, as shells have it; 0 where nobody asks to stop."""
        if self._signal is None and self._launcher not in (None, os.getppid()):
            self._signal = signal.SIGTERM
        return 0 if self._signal is None else 128 + self._signal

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # elsewhere Python allows none
            self._before = {each: signal.signal(each, self._notice) for each in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for each, handler in self._before.items():
            signal.signal(each, handler)

    def _notice(self, number: int, _frame: FrameType | None) -> None:
        if self._signal is None:
            self._signal, self._noticed = number, time.monotonic()
        elif time.monotonic() - self._noticed > SAME_REQUEST:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)


def _is_launched() -> bool:
    return "ACCELERATE_MIXED_PRECISION" in os.environ or "TORCHELASTIC_RUN_ID" in os.environ
