"""What is found out of all pixels of a large set once, and kept beside it."""

import hashlib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vaekit.images.copies import Copies
from vaekit.storage.damage import Damaged, as_written, typed
from vaekit.storage.sealed import read_sealed, write_sealed

FORMAT_VERSION = 1


@dataclass(frozen=True)
class Facts:
    """Of the images of all sides, as they are used."""

    sha256: str  # as `Images.sha256` has it
    copies: Copies


@dataclass(frozen=True)
class FactsPlace:
    """Where the facts of a set of images are kept, with what tells that set from others."""

    folder: Path
    index_sha256: str  # of the shards, their images and the order of these

    def path(self, used: str) -> Path:
        """Of the facts of so much of the set as `used` says."""
        return self.folder / f"facts-{hashlib.sha256(used.encode()).hexdigest()[:16]}.json"

    def read(self, used: str) -> Facts | None:
        """None where nothing is there, or it is damaged, or of other images."""
        try:
            values = read_sealed(self.path(used), version=FORMAT_VERSION)
            with as_written():
                if (values["index_sha256"], values["used"]) != (self.index_sha256, used):
                    return None
                return facts_from(values)
        except (OSError, Damaged):
            return None

    def write(self, used: str, facts: Facts) -> None:
        """Keep facts, if that is possible."""
        with suppress(OSError):  # or they are found out again at the next start
            write_sealed(
                self.path(used),
                {
                    "format_version": FORMAT_VERSION,
                    "index_sha256": self.index_sha256,
                    "used": used,
                    **as_values(facts),
                },
            )


def as_values(facts: Facts) -> dict[str, Any]:
    """As JSON values."""
    return {"images_sha256": facts.sha256, "copies": facts.copies._asdict()}


def facts_from(values: dict[str, Any]) -> Facts:
    """What `as_values` took apart. Raises as `as_written` expects for anything else."""
    copies = {name: typed(values["copies"][name], int) for name in Copies._fields}
    return Facts(typed(values["images_sha256"], str), Copies(**copies))
