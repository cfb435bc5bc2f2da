"""Every so many epochs, steps or minutes."""

import pytest

from vaekit.cadence import parse_cadence
from vaekit.errors import UserError


@pytest.mark.parametrize(
    ("text", "due", "not_due"),
    [
        ("2", (4, 7, 0.0), (3, 7, 1e9)),
        ("2", (2, 6, 0.0), (None, 6, 1e9)),
        ("500steps", (None, 1000, 0.0), (2, 1001, 1e9)),
        ("10min", (None, 3, 600.0), (2, 3, 599.0)),
    ],
)
def test_it_is_due_when_its_count_is_full(
    text: str, due: tuple[int | None, int, float], not_due: tuple[int | None, int, float]
) -> None:
    cadence = parse_cadence("--checkpoint_every", text)
    assert cadence.is_due(*due)
    assert not cadence.is_due(*not_due)


@pytest.mark.parametrize("text", ["0", "-1", "", "1.5", "5 steps", "0min", "2epochs", "9" * 12])
def test_anything_else_is_refused_by_the_name_of_its_flag(text: str) -> None:
    with pytest.raises(UserError, match=r"--checkpoint_every .*: expected .* as 2, 500steps"):
        parse_cadence("--checkpoint_every", text)
