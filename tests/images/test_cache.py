"""The images of a folder: decoded once, and unreadable files listed or left out."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_helpers import fault, flat, flip_a_bit, load, values, write, write_pets
from PIL import Image

from vaekit.images import cache as image_cache
from vaekit.images import decode as image_files


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    return write_pets(tmp_path / "pets")


def forbid_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("decoded again")

    monkeypatch.setattr(image_files, "_load", refuse)


def cache_files(root: Path) -> list[Path]:
    return sorted(path for path in (root / ".vaekit-cache").rglob("*") if path.is_file())


def test_images_are_decoded_once_and_then_mapped_from_the_cache(
    pets: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first = load(pets, image_size=8)
    assert "decoded 18 images" in capsys.readouterr().err
    forbid_decoding(monkeypatch)
    second = load(pets, image_size=8)
    assert capsys.readouterr().err == ""
    for loaded in (first, second):
        assert isinstance(loaded.train.pixels, np.memmap)
    assert second.sha256() == first.sha256()
    assert second.class_names == first.class_names


def test_writing_to_loaded_images_does_not_reach_the_cache(pets: Path) -> None:
    whole = load(pets, image_size=8).sha256()
    loaded = load(pets, image_size=8)
    loaded.train.pixels[:] = 99
    assert loaded.sha256() != whole
    assert load(pets, image_size=8).sha256() == whole


def test_a_changed_file_or_setting_is_decoded_anew(pets: Path) -> None:
    load(pets, image_size=8)
    write(pets / "test" / "cat" / "0.bmp", flat(77))  # as long as before, but newer
    assert 77 in values(load(pets, image_size=8).test)
    write(pets / "train" / "cat" / "new.png", flat(78))
    assert 78 in values(load(pets, image_size=8).train)
    assert load(pets, image_size=9).shape == (1, 9, 9)


@pytest.mark.parametrize("name", ["pixels.npy", "rows.npy", "meta.json"])
@pytest.mark.parametrize("damage", [lambda content: content[:100], flip_a_bit, None])
@pytest.mark.injects(5)
def test_a_damaged_cache_is_made_again(
    name: str, damage: Callable[[bytes], bytes] | None, pets: Path
) -> None:
    whole = load(pets, image_size=8).sha256()
    path = next(path for path in cache_files(pets) if path.name == name)
    if damage is None:
        path.unlink()
    else:
        path.write_bytes(damage(path.read_bytes()))
    assert load(pets, image_size=8).sha256() == whole
    assert path.exists()


@pytest.mark.injects(2)
def test_a_run_killed_while_decoding_leaves_no_cache(
    pets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(image_cache, "write_sealed", killed)
        with pytest.raises(KeyboardInterrupt):
            load(pets, image_size=8)
    assert cache_files(pets) == []
    assert len(load(pets, image_size=8).train.pixels) == 12


def test_of_two_runs_that_decode_at_once_both_get_the_images(
    pets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    collect = image_cache.collect
    others = []

    def collect_while_another_run_does(*arguments: Any, **settings: Any) -> Any:
        monkeypatch.setattr(image_cache, "collect", collect)
        others.append(load(pets, image_size=8))
        return collect(*arguments, **settings)

    monkeypatch.setattr(image_cache, "collect", collect_while_another_run_does)
    mine = load(pets, image_size=8)
    assert mine.sha256() == others[0].sha256()
    assert len([path for path in cache_files(pets) if path.name == "pixels.npy"]) == 1


@pytest.fixture
def pets_with_damage(pets: Path) -> Path:
    """A truncated RGBA image, a text, a dangling link: three that can't be read."""
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 4), dtype=np.uint8)
    truncated = write(pets / "train" / "cat" / "truncated.png", noise)
    truncated.write_bytes(truncated.read_bytes()[:2000])
    (pets / "train" / "dog" / "text.jpg").write_text("no image")
    (pets / "test" / "dog" / "dangling.png").symlink_to("nothing")
    return pets


def test_all_unreadable_images_are_listed_in_one_line(pets_with_damage: Path) -> None:
    line = fault(pets_with_damage)
    for name in ("train/cat/truncated.png", "train/dog/text.jpg", "test/dog/dangling.png"):
        assert name in line
    assert "--data.skip_unreadable" in line


def test_a_long_list_of_unreadable_images_is_cut_and_counted(pets: Path) -> None:
    for i in range(9):
        (pets / "train" / "cat" / f"bad{i}.png").write_bytes(b"")
    line = fault(pets)
    assert "bad4.png" in line
    assert "bad5.png" not in line
    assert "9 in all" in line


def test_unreadable_images_are_left_out_when_asked(pets_with_damage: Path) -> None:
    for _ in ("decoded", "from the cache"):
        loaded = load(pets_with_damage, image_size=8, skip_unreadable=True)
        assert loaded.shape == (1, 8, 8)  # the truncated file has no say
        assert sorted(values(loaded.train)) == [0, 1, 2, 3, 4, 5, 100, 101, 102, 103, 104, 105]
        assert loaded.train.labels is not None
        assert loaded.train.labels.tolist() == [int(value >= 100) for value in values(loaded.train)]
        assert len(loaded.test.pixels) == 6
        lines = "".join(loaded.reading.deviations())
        assert "1 not used: unreadable: image file is truncated" in lines
        assert "train/cat/truncated.png" in lines
    fault(pets_with_damage, image_size=8)


@pytest.mark.injects(12)
def test_a_set_with_nothing_readable_is_refused_even_when_skipping(tmp_path: Path) -> None:
    for name in ("train/a.png", "train/b.png", "test/a.png"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("no image")
    assert "none of the train images can be read" in fault(tmp_path, skip_unreadable=True)


@pytest.mark.filterwarnings("default")  # as outside of tests
@pytest.mark.injects(12)
def test_an_image_so_large_that_pillow_warns_counts_as_unreadable(
    pets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(pets / "train" / "cat" / "bomb.png", flat(0, 10))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 70)  # all others have 64; from 140 on it refuses
    assert "can't read train/cat/bomb.png (" in fault(pets)
