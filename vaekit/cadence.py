"""How often something is done: every so many epochs, steps or minutes."""

import re
from typing import NamedTuple

from vaekit.errors import UserError

FORM = re.compile(r"([1-9][0-9]{0,8})(steps|min)?")


class Cadence(NamedTuple):
    """One of the three is set."""

    epochs: int | None = None
    steps: int | None = None
    seconds: float | None = None

    def is_due(self, epoch: int | None, step: int, seconds_passed: float) -> bool:
        """At the end of `epoch` (None within one), after `step` steps of the run."""
        if self.epochs is not None:
            return epoch is not None and epoch % self.epochs == 0
        if self.steps is not None:
            return step % self.steps == 0
        return self.seconds is not None and seconds_passed >= self.seconds


def parse_cadence(flag: str, text: str) -> Cadence:
    """`2` epochs, `500steps` or `10min`. Raises `UserError`, naming `flag`, for anything else."""
    match = FORM.fullmatch(text)
    if match is None:
        raise UserError(
            f"{flag} {text}: expected a number of epochs, of steps or of minutes, as 2, 500steps "
            f"or 10min"
        )
    count = int(match[1])
    if match[2] == "steps":
        return Cadence(steps=count)
    return Cadence(seconds=60.0 * count) if match[2] == "min" else Cadence(epochs=count)
