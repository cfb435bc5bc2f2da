"""The peak memory of a stage, beside that of a peer where there is a fair one."""

import json
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from bench.interleaved import FLOORS
from bench.stages import Peak

ROOT = Path(__file__).parent.parent
MB = 1e6


class Appetite(NamedTuple):
    """What a stage took at most, beyond what its process held before."""

    stage: str
    ours: Peak
    peer: str = ""  # its name, where there is one
    theirs: Peak | None = None
    floor: float = 0.0  # how many times as much as ours the peer must take at least

    @property
    def ratio(self) -> float | None:
        return None if self.theirs is None else _taken(self.theirs) / _taken(self.ours)

    def fault(self) -> str | None:
        if self.ratio is None or self.ratio >= self.floor:
            return None
        assert self.theirs is not None
        return (
            f"memory, {self.stage}: {self.peer} takes {self.ratio:.2f} times as much, expected "
            f"at least {self.floor:g} ({FLOORS.name}); ours {_megabytes(_taken(self.ours))} MB, "
            f"theirs {_megabytes(_taken(self.theirs))} MB"
        )


def measure(stage: str, folder: Path) -> Peak:
    """Run a function of `bench.stages` in a process of its own."""
    command = [sys.executable, "-m", "bench.stages", stage, str(folder)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed:\n{result.stderr}")
    return Peak(*json.loads(result.stdout.splitlines()[-1]))


def memory_table(appetites: list[Appetite]) -> list[str]:
    """In MB: what the imports and the inputs take, and what the work takes beyond them."""
    if not appetites:
        return []
    titles = [each.stage if not each.peer else f"{each.stage} | {each.peer}" for each in appetites]
    width = max(map(len, titles))
    headings = ("before", "ours", "on GPU", "before", "theirs", "on GPU", "ratio", "needed")
    lines = [" " * width + "".join(f"{heading:>9}" for heading in headings)]
    for title, each in zip(titles, appetites, strict=True):
        cells = [*_cells(each.ours), *_cells(each.theirs)]
        cells.append("-" if each.ratio is None else f"{each.ratio:.2f}")
        cells.append(f"{each.floor:g}" if each.floor else "-")
        lines.append(f"{title:<{width}}" + "".join(f"{cell:>9}" for cell in cells))
    return lines


def _cells(peak: Peak | None) -> list[str]:
    if peak is None:
        return ["-"] * 3
    on_device = _megabytes(peak.device) if peak.device else "-"
    return [_megabytes(peak.before), _megabytes(_taken(peak)), on_device]


def _taken(peak: Peak) -> int:
    return peak.most - peak.before


def _megabytes(num_bytes: float) -> str:
    return f"{num_bytes / MB:,.0f}"
