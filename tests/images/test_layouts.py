"""Layouts of folders: the usual names of splits, lone folders, links; what is left out is named."""

import shutil
from pathlib import Path

import pytest
from conftest import TINY_FLAGS
from image_helpers import fault, flat, load, values, write

from vaekit.cli import main
from vaekit.images.folder import TEST, TRAIN, VALIDATION, side_of
from vaekit.images.image_set import Images
from vaekit.images.sets import count
from vaekit.runs.run import Run


def make(root: Path, *names: str) -> Path:
    """Images of different greys at these places; a name that ends in / is an empty folder."""
    for index, name in enumerate(names):
        if name.endswith("/"):
            (root / name).mkdir(parents=True)
        elif name.endswith(".txt"):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text("no image")
        else:
            write(root / f"{name}.png", flat(index))
    return root


def said(images: Images) -> str:
    return "\n".join(count(images).deviations())


@pytest.mark.parametrize(
    ("name", "side"),
    [
        *((name, TRAIN) for name in ("train", "Train", "TRAINING", "training_set", "trainset")),
        *((name, TRAIN) for name in ("train2017", "images_train", "seg_train", "TrainImages")),
        *(
            (name, VALIDATION)
            for name in ("val", "Valid", "VALIDATION", "val2017", "valset", "dev")
        ),
        *((name, TEST) for name in ("test", "Testing", "test-set", "testdata", "tst")),
        *((name, None) for name in ("trains", "cat", "1", "contest", "traffic", "train_test")),
        *((name, None) for name in ("valley", "testament", "images", "steam train")),
    ],
)
def test_the_usual_names_of_splits_are_known_in_any_case(name: str, side: int | None) -> None:
    assert side_of(name) == side


@pytest.mark.parametrize(
    ("train", "test"),
    [("train", "test"), ("Train", "Test"), ("training", "testing"), ("TRAIN", "testing_set")],
)
def test_a_split_is_taken_whatever_its_case(train: str, test: str, tmp_path: Path) -> None:
    make(tmp_path, f"{train}/a/0", f"{train}/b/1", f"{test}/a/2", f"{test}/b/3")
    images = load(tmp_path, image_size=8)
    assert images.class_names == ("a", "b")
    assert sorted(values(images.train)) == [0, 1]
    assert sorted(values(images.test)) == [2, 3]
    assert said(images) == ""


@pytest.mark.parametrize("name", ["val", "valid", "Validation"])
def test_validation_images_are_a_set_of_their_own(name: str, tmp_path: Path) -> None:
    make(tmp_path, "train/a/0", "train/b/1", f"{name}/a/2", f"{name}/b/3", "test/a/4", "test/b/5")
    images = load(tmp_path, image_size=8)
    assert images.validation is not None
    assert sorted(values(images.validation)) == [2, 3]
    assert sorted(values(images.test)) == [4, 5]
    shutil.rmtree(tmp_path / name)
    with_none = load(tmp_path, image_size=8)
    assert with_none.validation is None
    assert with_none.sha256() != images.sha256()


def test_without_test_images_those_for_validation_are_tested_on_and_that_is_said(
    tmp_path: Path,
) -> None:
    make(tmp_path, "train/a/0", "train/b/1", "val/a/2", "val/b/3")
    images = load(tmp_path, image_size=8)
    assert images.validation is None
    assert sorted(values(images.test)) == [2, 3]
    assert "val/ is the set to test on, since there is no test/" in said(images)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("train/a/0", "Training/a/1", "test/a/2"), "Training/, train/ name the same side"),
        (("train/a/0", "test/a/1", "TEST/a/2"), "name the same side"),
        (("train/0", "bus/1", "car/2"), "train/ is a side of a split by its name"),
        (("test/0", "bus/1", "car/2"), "test/ is a side of a split by its name"),
        (("cat/train/0", "cat/test/1", "dog/train/2", "dog/test/3"), "train/ within a class"),
        (("Train/a/0",), "test: no such folder"),
        (("val/a/0", "test/a/1"), "train: no such folder"),
        (("train/a/0", "test/b/1"), "b not among the classes of"),
        (("train/a/0", "val/b/1", "test/a/2"), "b not among the classes of"),
    ],
)
def test_what_may_be_a_split_and_may_not_is_refused_by_name(
    names: tuple[str, ...], expected: str, tmp_path: Path
) -> None:
    assert expected in fault(make(tmp_path, *names))


@pytest.mark.parametrize("above", ["pets", "pets/images", "a/b/c", "data"])
def test_lone_folders_above_the_classes_are_entered_and_said(above: str, tmp_path: Path) -> None:
    make(tmp_path, *(f"{above}/{name}/{i}" for i in range(10) for name in ("cat", "dog")))
    make(tmp_path, "__MACOSX/pets/cat/0", "empty/", ".DS_Store/", "readme.txt")
    images = load(tmp_path, image_size=8)
    assert images.class_names == ("cat", "dog")
    first = above.partition("/")[0]
    assert f"{first}/ is the only folder with images and holds folders: it was entered" in said(
        images
    )
    assert "__MACOSX" in said(images)
    assert "folders without images (empty/)" in said(images)


@pytest.mark.parametrize("inner", ["train", "images"])
def test_a_split_one_level_too_deep_is_entered_and_said(inner: str, tmp_path: Path) -> None:
    make(tmp_path, *(f"pets/train/{inner}/{name}/{i}" for i, name in enumerate("abab")))
    make(tmp_path, *(f"pets/test/{name}/{i}" for i, name in enumerate("abab")))
    images = load(tmp_path, image_size=8)
    assert images.class_names == ("a", "b")
    assert f"pets/train/{inner}/" in said(images)


def test_a_lone_folder_of_images_is_one_class(tmp_path: Path) -> None:
    make(tmp_path, *(f"cat/{i}" for i in range(10)))
    assert load(tmp_path, image_size=8).class_names == ("cat",)


def test_all_that_is_not_used_is_counted_by_its_reason(tmp_path: Path) -> None:
    make(tmp_path, *(f"{side}/{name}/{side}{i}" for side in ("train", "test") for name in "ab"
                     for i in range(3)))  # fmt: skip
    make(tmp_path, "extra/0", "extra/1", "loose", "train/empty/", "train/a/notes.txt")
    make(tmp_path, ".hidden/0", "train/a/.thumbnail", "__MACOSX/1")
    (tmp_path / "train" / "b" / "Thumbs.db").write_bytes(b"x")
    (tmp_path / "train" / "b" / "figure.eps").write_text("%!PS-Adobe-3.0 EPSF-3.0")
    reading = count(load(tmp_path, image_size=8))
    assert (reading.num_train, reading.num_test) == (6, 6)
    counts = {tally.what: (tally.number, tally.examples) for tally in reading.left_out}
    assert counts == {
        "beside the folders of the split": (3, ("extra/0.png", "extra/1.png", "loose.png")),
        "folders without images": (1, ("train/empty/",)),
        ".txt files, which hold no image that Pillow knows": (1, ("train/a/notes.txt",)),
        ".eps files, which vaekit does not decode": (1, ("train/b/figure.eps",)),
        "hidden": (2, (".hidden", "train/a/.thumbnail.png")),
        "of an operating system or an archiver": (2, ("__MACOSX", "train/b/Thumbs.db")),
    }


@pytest.mark.slow
def test_what_is_not_used_is_said_before_training_kept_in_the_run_and_an_error_where_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make(tmp_path / "pets", *(f"{name}/{i}" for i in range(10) for name in ("cat", "dog")))
    (root / "cat" / "a.txt").write_text("no image")
    model = TINY_FLAGS[TINY_FLAGS.index("--model.latent_dim") :]
    flags = ["train", "--data.name", "folder", "--data.root", str(root), *model]
    run = ["--batch_size", "8", "--data.image_size", "9", "--run", str(tmp_path / "run")]
    with pytest.raises(SystemExit, match="2"):
        main([*flags, *run, "--data.strict"])
    said = capsys.readouterr()
    assert said.err.splitlines()[-1].startswith("vaekit: error: --data.root")
    assert "1 not used: .txt files" in said.err.splitlines()[-1]
    assert not (tmp_path / "run").exists()
    main([*flags, *run])
    said = capsys.readouterr()
    assert "images: 21 files found, 18 to train on, 2 to test on" in said.out
    assert "a checkpoint, about" in said.out
    assert "vaekit: 1 not used: .txt files, which hold no image that Pillow knows" in said.err
    reading = Run(tmp_path / "run").reading
    assert reading is not None
    assert reading.num_found == 21
    assert [tally.number for tally in reading.left_out] == [1]
    before = load(root, image_size=9)
    (tmp_path / "run").rename(root / "run")  # as where somebody trains within the folder
    after = load(root, image_size=9)
    assert after.sha256() == before.sha256()
    assert "1 not used: runs of vaekit (run/)" in after.reading.deviations()
    (root / "run").rename(tmp_path / "run")
    main(["report", str(tmp_path / "run")])
    page = (tmp_path / "run" / "report.html").read_text()
    assert "not used: .txt files, which hold no image that Pillow knows" in page


def test_links_to_folders_are_followed_and_circles_named(tmp_path: Path) -> None:
    make(tmp_path / "elsewhere", *map(str, range(10)))
    root = make(tmp_path / "root", *(f"b/{i}" for i in range(20, 30)), "a/deep/0")
    (root / "a" / "deep" / "linked").symlink_to(tmp_path / "elsewhere")
    (root / "a" / "circle").symlink_to(root)
    (root / "b" / "itself").symlink_to(".")
    images = load(root, image_size=8)
    reading = count(images)
    assert reading.num_train + reading.num_test == 21
    (circles,) = reading.left_out
    assert circles.what == "links back to a folder above them"
    assert circles.examples == ("a/circle", "b/itself")


def test_a_run_that_was_recorded_before_goes_by_suffix_and_to_the_letter(tmp_path: Path) -> None:
    make(tmp_path, *(f"Train/{i}" for i in range(10)), *(f"Test/{i}" for i in range(10)))
    write(tmp_path / "Train" / "other.tga", flat(99))
    before = {"reading": "suffix", "background": "none", "value_range": "0,65535"}
    images = load(tmp_path, image_size=8, **before)
    assert images.class_names == ("Test", "Train")
    assert 99 not in values(images.train) + values(images.test)
