"""The rooms of the house bear names of their own."""

import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

import vaekit

ROOMS = [
    path
    for path in Path(vaekit.__path__[0]).iterdir()
    if path.suffix == ".py" or (path / "__init__.py").is_file()
]


@pytest.mark.slow
def test_no_room_bears_the_name_of_a_library() -> None:
    """`accelerate launch vaekit/train.py` puts vaekit/ first on sys.path, before all of them."""
    installed = packages_distributions().keys() - {"vaekit"}
    names = {path.stem for path in ROOMS}
    assert len(names) > 10
    assert names & (sys.stdlib_module_names | installed) == set()


def test_every_folder_says_what_it_is_for_and_hands_no_names_on() -> None:
    for room in filter(Path.is_dir, ROOMS):
        text = (room / "__init__.py").read_text()
        assert text.startswith('"""'), room
        assert "from vaekit" not in text, room
