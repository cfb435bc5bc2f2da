"""The images of a folder: decoded once, and unreadable files listed or left out."""

import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_helpers import fault, flat, flip_a_bit, load, values, write, write_pets
from PIL import Image

from vaekit.config import DataConfig
from vaekit.images import cache as image_cache
from vaekit.images import decode as image_files
from vaekit.images import parts, shards, single_file
from vaekit.images.collect import InMemory, collect
from vaekit.images.mapped import Mapped
from vaekit.images.sets import count, load_images
from vaekit.images.walk import walk
from vaekit.storage.files import file_sha256
from vaekit.storage.sealed import write_sealed


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    return write_pets(tmp_path / "pets")


def forbid_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("decoded again")

    monkeypatch.setattr(image_files, "_load", refuse)


def cache_files(root: Path) -> list[Path]:
    return sorted(path for path in (root / ".vaekit-cache").rglob("*") if path.is_file())


@pytest.mark.parametrize("at_most", [0, 2**28])
def test_images_are_decoded_once_and_large_sets_stay_in_their_shards(
    at_most: int, pets: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(image_cache, "IN_MEMORY_BYTES", at_most)
    first = load(pets, image_size=8)
    assert "decoded 18 images" in capsys.readouterr().err
    forbid_decoding(monkeypatch)
    second = load(pets, image_size=8)
    assert capsys.readouterr().err == ""
    for loaded in (first, second):
        assert isinstance(loaded.train.pixels, np.ndarray if at_most else Mapped)
        assert all(name.startswith("train/") for name in loaded.train.files or ("",))
    assert second.sha256() == first.sha256()
    assert second.class_names == first.class_names


def test_a_set_in_shards_is_the_same_as_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (60, 8, 8), dtype=np.uint8)
    for index in range(60):  # some are equal, and go to one side of the split
        name = f"{index:02d}{'x' * (index // 9)}.png"  # those of later shards are longer
        write(tmp_path / "ab"[index % 2] / name, noise[index % 45])
    settings: dict[str, Any] = {"image_size": 8, "validation": 7, "limit": 30}
    whole = load(tmp_path, **settings)
    monkeypatch.setattr(image_cache, "IN_MEMORY_BYTES", 0)
    monkeypatch.setattr(shards, "MOST_FILES", 7)
    (tmp_path / ".vaekit-cache").rename(tmp_path.parent / "elsewhere")
    for _ in ("decoded", "from the cache"):
        mapped = load(tmp_path, **settings)
        assert mapped.facts is not None
        assert mapped.sha256() == replace(mapped, facts=None).sha256() == whole.sha256()
        assert count(mapped) == count(replace(mapped, facts=None)) == count(whole)
        for side in ("train", "validation", "test"):
            one, other = getattr(whole, side), getattr(mapped, side)
            np.testing.assert_array_equal(one.pixels, np.asarray(other.pixels))
            np.testing.assert_array_equal(one.labels, other.labels)
            assert [*one.files] == [*other.files]


def test_facts_of_other_images_are_found_out_anew(
    pets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_cache, "IN_MEMORY_BYTES", 0)
    load(pets, image_size=8)
    (place,) = (path for path in cache_files(pets) if path.name.startswith("facts-"))
    kept = place.read_bytes()
    write(pets / "test" / "cat" / "0.bmp", flat(77))
    others = load(pets, image_size=8)
    facts = [path for path in cache_files(pets) if path.name.startswith("facts-")]
    (new,) = (path for path in facts if path != place)
    new.write_bytes(kept)
    again = load(pets, image_size=8)
    assert again.sha256() == others.sha256() == replace(again, facts=None).sha256()


def test_writing_to_loaded_images_does_not_reach_the_cache(pets: Path) -> None:
    whole = load(pets, image_size=8).sha256()
    loaded = load(pets, image_size=8)
    loaded.train.pixels[:] = 99
    assert loaded.sha256() != whole
    assert load(pets, image_size=8).sha256() == whole


def shards_of(root: Path) -> list[Path]:
    return [path for path in cache_files(root) if fnmatch(path.name, "shard-*.npy")]


def count_decoding(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that are decoded from now on, by a name of two folders."""
    decoded, load_file = [], image_files._load

    def counted(source: image_files.Source) -> Any:
        decoded.append("/".join(Path(str(source.file)).parts[-3:]))
        return load_file(source)

    monkeypatch.setattr(image_files, "_load", counted)
    return decoded


def test_a_changed_file_or_setting_is_decoded_anew(pets: Path) -> None:
    load(pets, image_size=8)
    write(pets / "test" / "cat" / "0.bmp", flat(77))  # as long as before, but newer
    assert 77 in values(load(pets, image_size=8).test)
    assert load(pets, image_size=9).shape == (1, 9, 9)


def test_added_files_make_new_shards(
    pets: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    load(pets, image_size=8)
    before = {path: path.read_bytes() for path in shards_of(pets)}
    write(pets / "train" / "cat" / "new.png", flat(78))
    decoded = count_decoding(monkeypatch)
    loaded = load(pets, image_size=8)
    assert decoded == ["train/cat/new.png"]
    assert 78 in values(loaded.train)
    assert before.items() <= {path: path.read_bytes() for path in shards_of(pets)}.items()
    (pets / "train" / "cat" / "new.png").unlink()
    assert 78 not in values(load(pets, image_size=8).train)
    assert len(decoded) == 1


def test_a_colour_image_among_grey_ones_has_all_decoded_in_colour(pets: Path) -> None:
    assert load(pets, image_size=8).shape == (1, 8, 8)
    write(pets / "train" / "cat" / "red.png", np.full((8, 8, 3), (200, 0, 0), np.uint8))
    assert load(pets, image_size=8).shape == (3, 8, 8)


@pytest.mark.parametrize(
    "name",
    [
        "index.json", "rows.npy", "shard-00000-*.npy", "shard-00000-*.rows.npy",
        "shard-00000-*.json", "headers-00000-*.json",
    ],
)  # fmt: skip
@pytest.mark.parametrize("damage", [lambda content: content[:100], flip_a_bit, None])
@pytest.mark.injects(5)
def test_what_is_damaged_in_a_cache_is_made_again(
    name: str,
    damage: Callable[[bytes], bytes] | None,
    pets: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    whole = load(pets, image_size=8).sha256()
    path = next(path for path in cache_files(pets) if fnmatch(path.name, name))
    capsys.readouterr()
    if damage is None:
        path.unlink()
    else:
        path.write_bytes(damage(path.read_bytes()))
    assert load(pets, image_size=8).sha256() == whole
    assert path.exists() or (damage is None and "headers" in name)
    assert "headers" in name or "made again from the files" in capsys.readouterr().err
    assert load(pets, image_size=8).sha256() == whole
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("of", ["other pixels", "other settings"])
@pytest.mark.injects(5)
def test_a_shard_of_another_cache_is_not_used(
    of: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, other = write_pets(tmp_path / "pets"), write_pets(tmp_path / "other")
    whole = load(root, image_size=8).sha256()
    if of == "other pixels":
        write(other / "train" / "cat" / "0.png", flat(99))
    load(other, image_size=8 if of == "other pixels" else 9)
    (place,), (foreign,) = ({path.parent for path in shards_of(each)} for each in (root, other))
    shutil.rmtree(place)
    shutil.copytree(foreign, place)
    capsys.readouterr()
    assert load(root, image_size=8).sha256() == whole
    assert "made again from the files" in capsys.readouterr().err


@pytest.mark.injects(5)
def test_damage_without_a_trace_shows_at_the_first_start_of_a_machine(
    pets: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = load(pets, image_size=8).sha256()
    path = next(path for path in shards_of(pets) if not path.name.endswith(".rows.npy"))
    status = path.stat()
    with path.open("r+b") as file:  # in its place, and no later by the clock
        file.seek(200)
        file.write(bytes([99]))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert load(pets, image_size=8).sha256() != whole
    capsys.readouterr()
    monkeypatch.setattr(image_cache, "_boot", lambda: "another")
    assert load(pets, image_size=8).sha256() == whole
    assert "is not the file that was written; it is made again" in capsys.readouterr().err


@pytest.mark.injects(2)
def test_decoding_that_was_killed_goes_on_from_the_shard_under_way(
    pets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = load(pets, image_size=8).sha256()
    shutil.rmtree(pets / ".vaekit-cache")
    monkeypatch.setattr(shards, "MOST_FILES", 5)
    decoded = count_decoding(monkeypatch)
    kept = []
    write_sealed = parts.write_sealed

    def killed(path: Path, *arguments: Any) -> None:
        kept.append(path)
        if path.name.startswith("shard-00002"):
            raise KeyboardInterrupt
        write_sealed(path, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(parts, "write_sealed", killed)
        with pytest.raises(KeyboardInterrupt):
            load(pets, image_size=8)
    assert len(decoded) == 15
    assert load(pets, image_size=8).sha256() == whole
    assert len(decoded) == 15 + 5 + 3  # the two shards that were done are not decoded again


@pytest.mark.injects(2)
def test_what_a_killed_decoding_left_behind_is_cleared_away_in_time(pets: Path) -> None:
    load(pets, image_size=8)
    (place,) = {path.parent for path in shards_of(pets)}
    old, young = place / ".tmp-old", place / ".tmp-young"
    for folder in (old, young):
        folder.mkdir()
        (folder / "shard-00001.npy").write_bytes(b"half")
    os.utime(old, (0, 0))
    write(pets / "train" / "cat" / "new.png", flat(78))
    load(pets, image_size=8)
    assert not old.exists()
    assert young.exists()  # it may be another process that is at work


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
    assert len([path for path in cache_files(pets) if path.name == "index.json"]) == 1


@pytest.mark.parametrize("is_split", [True, False])
def test_a_cache_in_one_file_as_vaekit_wrote_it_before_is_read(
    is_split: bool, pets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = pets if is_split else pets / "train"
    data = DataConfig(name="folder", root=str(root), image_size=8)
    write_single_file(data)
    forbid_decoding(monkeypatch)
    read = load_images(data, 0)
    monkeypatch.undo()
    shutil.rmtree(root / ".vaekit-cache")
    decoded = load_images(data, 0)
    assert read.sha256() == decoded.sha256()
    assert read.train.files == decoded.train.files
    assert read.reading == decoded.reading


def write_single_file(data: DataConfig) -> None:
    """The cache that vaekit wrote before it wrote shards."""
    data = replace(data, reading="content")
    root = Path(data.root)
    found = walk(root, by_suffix=False)
    names = single_file._names(found)
    images = collect(found, data, 0, InMemory())
    seed = 0 if images.is_split else None
    entry = root / ".vaekit-cache" / single_file._key(names, images.data, seed)
    entry.mkdir(parents=True)
    np.save(entry / "pixels.npy", images.pixels)
    np.save(entry / "rows.npy", np.stack([images.labels, images.files, images.pages], axis=1))
    meta = {
        "format_version": 3,
        "files": {name: file_sha256(entry / name) for name in ("pixels.npy", "rows.npy")},
        "class_names": list(images.class_names),
        "num_on_side": list(images.num_on_side),
        "reading": asdict(images.reading),
    }
    write_sealed(entry / "meta.json", meta)
    settled = {name: getattr(images.data, name) for name in ("background", "value_range")}
    for each in (data, images.data):
        path = root / ".vaekit-cache" / f"{single_file._key(names, each)}.json"
        write_sealed(path, {"format_version": 3, **settled, "is_split": images.is_split})


@pytest.fixture
def pets_with_damage(pets: Path) -> Path:
    """A truncated RGBA image, a text, a dangling link: three that can't be read."""
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 4), dtype=np.uint8)
    truncated = write(pets / "train" / "cat" / "truncated.png", noise)
    truncated.write_bytes(truncated.read_bytes()[:2000])
    (pets / "train" / "dog" / "text.jpg").write_text("no image")
    (pets / "test" / "dog" / "dangling.png").symlink_to("nothing")
    return pets


def test_a_long_list_of_unreadable_images_is_cut_and_counted(pets: Path) -> None:
    for i in range(9):
        (pets / "train" / "cat" / f"bad{i}.png").write_bytes(b"")
    line = fault(pets)
    assert "bad4.png" in line
    assert "bad5.png" not in line
    assert "9 in all" in line


def test_unreadable_images_are_all_listed_in_one_line_or_left_out_when_asked(
    pets_with_damage: Path,
) -> None:
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
    line = fault(pets_with_damage, image_size=8)
    for name in ("train/cat/truncated.png", "train/dog/text.jpg", "test/dog/dangling.png"):
        assert name in line
    assert "--data.skip_unreadable" in line


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
