"""What was not used, or used as something else: said, kept in the run, an error where asked."""

from dataclasses import fields, replace
from pathlib import Path

import pytest

from vaekit.errors import UserError
from vaekit.images.reading import Reading, Tally
from vaekit.runs.reading import read_reading, write_reading
from vaekit.storage.damage import Damaged

EVERYTHING = Reading(
    num_found=30,
    num_train=20,
    num_validation=3,
    num_test=4,
    layout=("pets/ is the only folder: entered",),
    left_out=(Tally("no images", 2, ("a.txt", "b.txt")),),
    used_otherwise=(Tally("images composited on white", 7, ("c.png",)),),
    num_copies=1,
    num_test_in_train=2,
    num_validation_in_train=1,
    num_in_two_classes=1,
    classes_without_train=("cat",),
    classes_without_validation=("dog", "cat"),
    classes_without_test=("dog",),
    remarks=("values from 0 to 4095 become 0 to 255",),
)


def test_every_count_is_said_once_and_is_an_error_where_asked() -> None:
    text = "\n".join([*EVERYTHING.summary(), *EVERYTHING.deviations()])
    assert EVERYTHING.summary()[0] == (
        "images: 30 files found, 20 to train on, 3 to validate on, 4 to test on"
    )
    for part in (
        "pets/ is the only folder: entered",
        "2 not used: no images (a.txt, b.txt)",
        "7 images composited on white (c.png, ...)",
        "2 test images that equal a training image",
        "2 classes without validation images (dog, cat)",
        "1 classes without test images (dog)",
        "values from 0 to 4095",
    ):
        assert text.count(part) == 1, part
    with pytest.raises(UserError) as error:
        EVERYTHING.require_none("pets")
    assert all(each in str(error.value) for each in EVERYTHING.deviations())
    assert "\n" not in str(error.value)


def test_where_all_is_used_as_it_is_there_is_nothing_to_mend() -> None:
    plain = Reading(num_found=5, num_train=4, num_test=1, remarks=("grey",))
    assert plain.deviations() == []
    plain.require_none("pets")


def test_it_comes_back_from_its_file(tmp_path: Path) -> None:
    path = tmp_path / "images.json"
    for reading in (EVERYTHING, Reading()):
        write_reading(path, reading)
        assert read_reading(path) == reading


@pytest.mark.parametrize("name", [each.name for each in fields(Reading)])
def test_a_forged_file_is_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / "images.json"
    write_reading(path, replace(EVERYTHING, **{name: 1.5}))  # type: ignore[arg-type]
    with pytest.raises(Damaged):
        read_reading(path)
