"""Image sets that are damaged, absurd or oddly named: named in one line, or read like any other."""

import gzip
import hashlib
import io
import os
import random
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from image_helpers import fault, flat, load, write, write_pets
from PIL import Image
from torchvision import datasets

from vaekit.config import DataConfig
from vaekit.errors import UserError
from vaekit.images import idx
from vaekit.images.decode import Source, decode_files
from vaekit.images.folder import Arrangement, arrange
from vaekit.images.survey import common_channels, looks_of, survey
from vaekit.images.walk import CACHE_FOLDER, walk

NOISE = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
RAW = "MNIST/raw"
FILE = "train-images-idx3-ubyte"


def encoded(format_name: str, mode: str = "RGB", **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(NOISE).convert(mode).save(buffer, format_name, **options)
    return buffer.getvalue()


def png(width: int, height: int) -> bytes:
    """A PNG whose header claims this size, of an 8x8 image."""
    content = bytearray(encoded("PNG", "L"))
    content[16:24] = struct.pack(">II", width, height)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    return bytes(content)


def broken_exif() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded("JPEG", dpi=(72, 72), exif=exif).replace(b"Exif\0\0MM", b"Exif\0\0??")


def tiff(**tags: tuple[int, int, int]) -> bytes:
    """A TIFF of 8x8 greys; a tag's number, as t258, with its type, count and value."""
    entries = {
        256: (3, 1, 8), 257: (3, 1, 8), 258: (3, 1, 8), 259: (3, 1, 1), 262: (3, 1, 1),
        273: (4, 1, 8), 277: (3, 1, 1), 278: (3, 1, 8), 279: (4, 1, 64),
        **{int(name[1:]): value for name, value in tags.items()},
    }  # fmt: skip
    directory = struct.pack("<H", len(entries))
    for number, (kind, count, value) in sorted(entries.items()):
        directory += struct.pack("<HHII", number, kind, count, value)
    return struct.pack("<2sHI", b"II", 42, 72) + bytes(64) + directory + bytes(4)


def dds_of_unknown_layout() -> bytes:
    content = bytearray(encoded("DDS"))
    content[80:88] = struct.pack("<I4s", 4, b"DXT9")  # a code instead of masks
    return bytes(content)


UNREADABLE = {
    "zero bytes.png": b"",
    "one byte.jpg": b"\xff",
    "page.png": b"<!DOCTYPE html><title>404</title>",
    "text.gif": "no image, ü".encode(),
    "bomb.png": png(60_000, 60_000),
    "long bomb.png": png(2**31 - 1, 1),
    "no width.png": png(0, 8),
    "broken exif.jpg": broken_exif(),
    "too few pixels.pgm": b"P2 8 8 255 1 2 3",
    "postscript.png": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n",
    "rational offset.tif": tiff(t273=(5, 1, 8)),
    "text offset.tif": tiff(t273=(2, 1, 8)),
    "bytes offset.tif": tiff(t273=(7, 1, 8)),
    "number as colour map.tif": tiff(t262=(3, 1, 3), t320=(11, 1, 8)),
    "no size.tif": tiff(t256=(3, 1, 0)),
    "unknown layout.dds": dds_of_unknown_layout(),
    "huge.tif": tiff(t256=(4, 1, 2**31 - 1), t257=(4, 1, 2**31 - 1)),
    **{
        f"half.{name.lower()}": encoded(name)[: len(encoded(name)) // 2]
        for name in ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
    },
}


@pytest.mark.parametrize("name", UNREADABLE)
@pytest.mark.injects(12)
def test_a_file_that_cannot_be_read_is_named_or_left_out_where_asked(
    name: str, tmp_path: Path
) -> None:
    root = write_pets(tmp_path)
    path = root / "train" / "cat" / name
    path.write_bytes(UNREADABLE[name])
    assert name in fault(root)
    assert not any((root / CACHE_FOLDER).glob("*/index.json"))
    assert len(load(root, skip_unreadable=True).train.pixels) == 12


@pytest.mark.injects(12)
def test_an_image_whose_colour_map_overflows_is_read_or_named_as_pillow_has_it(
    tmp_path: Path,
) -> None:
    """Pillow before 13 makes nothing of such a map; later ones raise."""
    root = write_pets(tmp_path)
    path = root / "train" / "cat" / "huge colour map.tif"
    path.write_bytes(tiff(t262=(3, 1, 3), t320=(4, 1, 2**32 - 1)))
    assert len(load(root, skip_unreadable=True).train.pixels) > 0


def test_a_tiff_as_made_here_is_one_that_can_be_read(tmp_path: Path) -> None:
    (tmp_path / "whole.tif").write_bytes(tiff())
    pixels = np.empty((1, 1, 8, 8), np.uint8)
    decoded = decode_files([Source(tmp_path / "whole.tif")], pixels, SETTLED, "")
    assert not dict(decoded.unreadable.items())
    assert not pixels.any()


@pytest.mark.parametrize(
    "name",
    [
        "a b\tc.png",
        "line\nbreak.png",
        "-rf.png",
        "ü ñ 漢字.png",
        "👩‍🔬.png",
        "'\"$(touch x)`;&|.png",
        "%s{0}\\n.png",
        "x" * 200 + ".png",
        os.fsdecode(b"latin-1 \xfc.png"),
    ],
    ids=ascii,
)
@pytest.mark.injects(12)
def test_odd_file_names_are_names_like_any_other(name: str, tmp_path: Path) -> None:
    root = write_pets(tmp_path)
    write(root / "train" / "cat" / name, flat(77))
    assert len(load(root).train.pixels) == 13
    (root / "train" / "cat" / name).write_bytes(b"damaged")
    line = fault(root)
    assert line.isprintable()
    assert (name if name.isprintable() else repr(f"train/cat/{name}")) in line


@pytest.mark.injects(12)
def test_odd_names_of_classes_are_kept_and_those_that_no_text_can_hold_are_refused(
    tmp_path: Path,
) -> None:
    root = write_pets(tmp_path)
    write(root / "train" / "ü 漢 👩‍🔬 <b>" / "0.png", flat(1))
    assert "ü 漢 👩‍🔬 <b>" in load(root).class_names
    write(root / "train" / os.fsdecode(b"\xfc") / "0.png", flat(1))
    line = fault(root)
    assert "is not UTF-8; rename the folder" in line
    assert line.isprintable()


@pytest.mark.parametrize("where", ["train/cat/pipe.png", "train/cat/deep/pipe.png"])
@pytest.mark.injects(6)
def test_a_pipe_among_the_images_keeps_nobody_waiting(where: str, tmp_path: Path) -> None:
    root = write_pets(tmp_path)
    (root / where).parent.mkdir(exist_ok=True)
    os.mkfifo(root / where)
    assert "pipe.png" in fault(root)


@pytest.mark.injects(6)
def test_links_among_the_images_are_followed_and_their_loops_and_dead_ends_named(
    tmp_path: Path,
) -> None:
    root = write_pets(tmp_path)
    cat = root / "train" / "cat"
    (cat / "again.png").symlink_to("0.png")
    assert len(load(root).train.pixels) == 13
    (cat / "loop.png").symlink_to("loop.png")
    (cat / "nowhere.png").symlink_to("nothing")
    line = fault(root)
    assert "loop.png" in line
    assert "nowhere.png" in line


@pytest.mark.parametrize("what", ["file", "link", "pipe"])
@pytest.mark.injects(6)
def test_what_lies_in_the_place_of_the_cache_is_left_alone_and_images_kept_in_memory(
    what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, cache = write_pets(tmp_path), tmp_path / CACHE_FOLDER
    if what == "file":
        cache.write_text("mine")
    elif what == "link":
        cache.symlink_to("nowhere")
    else:
        os.mkfifo(cache)
    in_memory = load(root)
    assert "only in memory" in capsys.readouterr().err
    assert not cache.is_dir()
    cache.unlink()
    assert load(root).sha256() == in_memory.sha256()


SETTLED = DataConfig(background="white", value_range="0,255")
SEEDS = [
    *(encoded("PNG", mode) for mode in ("L", "RGB", "RGBA", "P", "1")),
    *(encoded("JPEG", mode) for mode in ("L", "RGB", "CMYK")),
    *(encoded("BMP", mode) for mode in ("RGB", "P", "1")),
    encoded("GIF", "P"),
    encoded("WEBP"),
    encoded("WEBP", "RGBA", lossless=True),
    *(encoded("TIFF", compression=name) for name in ("raw", "tiff_lzw", "packbits")),
    tiff(),
    encoded("PPM"),
    b"P2 4 4 255 " + b"7 " * 16,
    b"Pf\n2 2\n-1.0\n" + bytes(16),
]


def mutated(content: bytes, generator: random.Random) -> bytes:
    found = bytearray(content)
    for _ in range(generator.choice((1, 1, 2, 4, 16))):
        if not found:
            break
        place = generator.randrange(min(len(found), generator.choice((64, 256, 100_000))))
        change = generator.randrange(6)
        if change == 0:
            found[place] ^= 1 << generator.randrange(8)
        elif change == 1:
            found[place] = generator.choice((0, 1, 127, 128, 255))
        elif change == 2:
            found[place : place + 4] = generator.choice(
                (b"\xff" * 4, bytes(4), b"\xff\xff\xff\x7f")
            )
        elif change == 3:
            del found[place : place + generator.randrange(1, 9)]
        elif change == 4:
            found[place:place] = generator.randbytes(generator.randrange(1, 9))
        else:
            del found[place:]
    return bytes(found)


def mutated_tiff(generator: random.Random) -> bytes:
    numbers = (256, 257, 258, 259, 262, 266, 273, 274, 277, 278, 279, 284, 320, 322, 323, 338, 339)
    counts = (1, 1, 1, 1, 2, 3, 0, 2**32 - 1)
    values = (0, 1, 2, 3, 5, 8, 16, 255, 65_535, 65_536, 2**31 - 1, 2**31, 2**32 - 1)
    return tiff(
        **{
            f"t{number}": (
                generator.randrange(14), generator.choice(counts), generator.choice(values)
            )
            for number in generator.sample(numbers, generator.randrange(1, 4))
        }
    )  # fmt: skip


@pytest.mark.parametrize(
    "count",
    [
        pytest.param(600, marks=pytest.mark.injects(12, times=600)),
        pytest.param(12_000, marks=[pytest.mark.faults, pytest.mark.injects(12, times=12_000)]),
    ],
)
def test_images_damaged_at_random_are_read_or_named(
    count: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    generator = random.Random(0)
    for _ in range(0, count, 600):
        paths = [tmp_path / f"{index}.png" for index in range(600)]
        for path in paths:
            is_tiff = generator.random() < 0.4
            content = (
                mutated_tiff(generator) if is_tiff else mutated(generator.choice(SEEDS), generator)
            )
            path.write_bytes(content)
        found = survey(paths, DataConfig())
        channels = common_channels(looks_of([found.pages[:]]), SETTLED)
        pixels = np.zeros((len(paths), channels, 8, 8), np.uint8)
        decoded = decode_files([Source(path) for path in paths], pixels, SETTLED, "")
        failed = dict(decoded.unreadable.items())
        assert 0 < len(failed) < len(paths)
        capfd.readouterr()  # libtiff speaks for itself


def peak_of(function: Callable[[], object]) -> int:
    """The most bytes that Python's objects took."""
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.fixture
def put_archive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_network: None
) -> Callable[[bytes], None]:
    """In the place of one of MNIST's, with an md5 that fits; the other files are empty."""

    def put(content: bytes) -> None:
        archive = tmp_path / RAW / f"{FILE}.gz"
        archive.parent.mkdir(parents=True)
        archive.write_bytes(content)
        md5 = hashlib.md5(content).hexdigest()
        monkeypatch.setattr(datasets.MNIST, "resources", [(archive.name, md5)])
        for name in idx.IDX_SETS["mnist"].file_names[1:]:
            (archive.parent / name).touch()

    return put


@pytest.mark.injects(11)
def test_a_gzip_bomb_is_not_expanded(tmp_path: Path, put_archive: Callable[[bytes], None]) -> None:
    compressor = zlib.compressobj(wbits=31)
    zeros = bytes(2**20)
    bomb = b"".join(compressor.compress(zeros) for _ in range(400)) + compressor.flush()
    put_archive(bomb)
    lines = []
    peak = peak_of(lambda: lines.append(fault(tmp_path, "mnist")))
    assert "begins with 00000000" in lines[0]
    assert peak < 4 * idx.MAX_BYTES

    (tmp_path / "KMNIST/raw").mkdir(parents=True)
    for name in idx.IDX_SETS["kmnist"].file_names:
        (tmp_path / "KMNIST/raw" / name).write_bytes(bomb)
    peak = peak_of(lambda: lines.append(fault(tmp_path, "kmnist")))
    assert "sha256" in lines[1]
    assert peak < 4 * idx.MAX_BYTES


@pytest.mark.injects(11)
def test_an_endless_file_is_not_read_to_its_end(tmp_path: Path) -> None:
    folder = tmp_path / RAW
    folder.mkdir(parents=True)
    for name in idx.IDX_SETS["mnist"].file_names:
        (folder / name).touch()
        os.truncate(folder / name, 2**40)
    assert peak_of(lambda: fault(tmp_path, "mnist")) < 4 * idx.MAX_BYTES


@pytest.mark.parametrize(
    "damage", [lambda whole: whole[:-20], lambda whole: whole[:10] + b"?" * 99]
)
@pytest.mark.injects(11)
def test_a_damaged_archive_is_refused_even_where_its_md5_fits(
    damage: Callable[[bytes], bytes], tmp_path: Path, put_archive: Callable[[bytes], None]
) -> None:
    put_archive(damage(gzip.compress(NOISE.tobytes())))
    assert "a damaged archive" in fault(tmp_path, "mnist")


@pytest.mark.injects(11)
def test_a_download_that_is_not_what_was_asked_for_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a network's login page answers for the mirror."""

    def login_page(request: object, **_: object) -> io.BytesIO:
        response = io.BytesIO(b"<!DOCTYPE html><title>Please sign in</title>")
        response.url = request.full_url  # type: ignore[attr-defined]
        response.length = 44  # type: ignore[attr-defined]
        return response

    monkeypatch.setattr("urllib.request.urlopen", login_page)
    assert "the download failed" in fault(tmp_path, "kmnist")
    assert not any((tmp_path / "KMNIST/raw").iterdir())


def arranged(root: Path) -> Arrangement:
    found = walk(root, by_suffix=False)
    return arrange(found, np.arange(len(found)), by_suffix=False)


@pytest.mark.faults
@pytest.mark.injects(12)
def test_a_hundred_thousand_images_are_listed_in_little_memory_and_used(tmp_path: Path) -> None:
    for label, name in enumerate("abcd"):
        (tmp_path / name).mkdir()
        for index in range(25_000):  # a grey PGM of one row, each of its own pixels
            pixels = struct.pack(">I", label << 24 | index)
            (tmp_path / name / f"{index:06d}.pgm").write_bytes(b"P5 4 1 255\n" + pixels)
    assert peak_of(lambda: arranged(tmp_path)) < 100_000 * 150
    images = load(tmp_path, image_size=8)
    assert len(images.train.pixels) + len(images.test.pixels) == 100_000
    assert load(tmp_path, image_size=8).sha256() == images.sha256()
    (tmp_path / "a" / "000000.pgm").write_bytes(b"")
    with pytest.raises(UserError, match=r"can't read a/000000\.pgm \("):
        load(tmp_path, image_size=8)
