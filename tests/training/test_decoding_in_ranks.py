"""The images of a folder, decoded by all ranks of a launch into one cache."""

import os
import shutil
import signal
from functools import partial
from pathlib import Path

import pytest
from image_helpers import flat, write, write_pets
from rank_helpers import run_ranks

from vaekit.config import DataConfig
from vaekit.errors import say
from vaekit.images import parts, shards
from vaekit.images.sets import load_images
from vaekit.training.ranks import ImageRanks, lost_ranks_in_one_line, start_ranks

NUM_FILES = 18


@lost_ranks_in_one_line()
def decode(roots: tuple[Path, ...], fate: str = "") -> None:
    """What a rank does: each may look at a root of its own, and rank 1 may meet a fate."""
    ranks = start_ranks()
    rank = ranks.process_index
    shards.MOST_FILES = 4
    decoded, do_part = shards.decode_files, parts._do_part

    def say_how_many(sources: list[object], *arguments: object) -> object:
        say(f"rank {rank} decodes {len(sources)}")
        return decoded(sources, *arguments)  # type: ignore[arg-type]

    def meet_fate(*arguments: object) -> None:
        if rank == 1 and "shard" in str(arguments[1]):
            if fate == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            raise OSError("no space")
        do_part(*arguments)  # type: ignore[arg-type]

    shards.decode_files = say_how_many  # type: ignore[assignment]
    if fate:
        parts._do_part = meet_fate  # type: ignore[assignment]
    images = load_images(
        DataConfig(name="folder", root=str(roots[rank % len(roots)]), image_size=8),
        0,
        ranks=ImageRanks(ranks),
    )
    say(f"sha256 {images.sha256()}")


def by_itself(root: Path) -> str:
    return (
        f"sha256 {load_images(DataConfig(name='folder', root=str(root), image_size=8), 0).sha256()}"
    )


def num_decoded(errors: list[str]) -> list[int]:
    return [
        sum(int(line.split()[-1]) for line in said.splitlines() if " decodes " in line)
        for said in errors
    ]


@pytest.mark.parametrize(
    ("num_files", "num_ranks", "size"),
    [
        (60_000, 1, 60_000),
        (60_000, 2, 30_000),
        (400_000, 1, 133_334),
        (400_000, 2, 100_000),
        (1_000_001, 3, 166_667),
        (300, 8, 1000),
    ],
)
def test_shards_are_so_large_that_all_ranks_have_as_many(
    num_files: int, num_ranks: int, size: int
) -> None:
    assert shards.evenly(num_files, 171_196, num_ranks) == size


@pytest.mark.slow
def test_each_rank_decodes_its_shards_and_all_have_the_same_images(tmp_path: Path) -> None:
    root, alone = write_pets(tmp_path / "pets"), write_pets(tmp_path / "alone")
    expected = by_itself(alone)
    ended = run_ranks(partial(decode, (root,)), 2, tmp_path)
    assert ended.exit_codes == [0, 0], ended.errors
    assert num_decoded(ended.errors) == [10, 8]  # shards of 4, 4, 4, 4 and 2
    assert all(expected in said for said in ended.errors)
    write(root / "train" / "cat" / "new.png", flat(78))
    ended = run_ranks(partial(decode, (root,)), 2, tmp_path)
    assert ended.exit_codes == [0, 0], ended.errors
    assert num_decoded(ended.errors) == [1, 0]


@pytest.mark.slow
@pytest.mark.parametrize("is_decoded", [False, True])
@pytest.mark.injects(9)
def test_ranks_whose_file_systems_disagree_end_in_one_line(
    is_decoded: bool, tmp_path: Path
) -> None:
    roots = write_pets(tmp_path / "one"), write_pets(tmp_path / "other")
    if is_decoded:
        write(roots[1] / "train" / "cat" / "more.png", flat(8))
        for root in roots:
            by_itself(root)
    ended = run_ranks(partial(decode, roots), 2, tmp_path)
    assert ended.exit_codes == [2, 2], ended.errors
    assert "rank 1 on" in ended.errors[1]
    assert "give a --data.root on a file system that all machines share" in ended.errors[1]
    assert "Traceback" not in "".join(ended.errors)


@pytest.mark.slow
@pytest.mark.injects(4)
def test_where_one_rank_cannot_keep_its_shard_all_decode_into_memory(tmp_path: Path) -> None:
    root, alone = write_pets(tmp_path / "pets"), write_pets(tmp_path / "alone")
    ended = run_ranks(partial(decode, (root,), "refused"), 2, tmp_path)
    assert ended.exit_codes == [0, 0], ended.errors
    assert "only in memory" in ended.errors[0]
    expected = by_itself(alone)
    assert all(expected in said for said in ended.errors)


@pytest.mark.slow
@pytest.mark.injects(2)
def test_where_a_rank_is_killed_while_decoding_the_next_start_goes_on(tmp_path: Path) -> None:
    root, alone = write_pets(tmp_path / "pets"), write_pets(tmp_path / "alone")
    ended = run_ranks(partial(decode, (root,), "killed"), 2, tmp_path)
    assert ended.exit_codes == [2, -signal.SIGKILL], ended.errors
    assert "rank 0 can't go on alone" in ended.errors[0]
    again = run_ranks(partial(decode, (root,)), 2, tmp_path)
    assert again.exit_codes == [0, 0], again.errors
    assert sum(num_decoded(again.errors)) == NUM_FILES - 4  # one shard was done
    shutil.rmtree(root / ".vaekit-cache")
    assert by_itself(root) in again.errors[0]
    assert by_itself(alone) in again.errors[0]
