"""What was read as images, and what was not or as something else: counted, to be said and kept."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from typing import Any, NamedTuple, TypeVar

from vaekit.errors import UserError
from vaekit.storage.damage import strings, typed

NUM_EXAMPLES = 3

T = TypeVar("T")


class Tally(NamedTuple):
    """How many files or images share a fate, and the names of a few."""

    what: str
    number: int
    examples: tuple[str, ...] = ()

    @property
    def named(self) -> str:
        """The names, and whether there are more."""
        more = ", ..." if len(self.examples) < self.number else ""
        return f"{', '.join(self.examples)}{more}" if self.examples else ""

    def __str__(self) -> str:
        return f"{self.number:,} {self.what}" + (f" ({self.named})" if self.examples else "")


@dataclass(frozen=True)
class Reading:
    """What became of the files of an image set. Without files it says the numbers of images."""

    num_found: int = 0  # files that were looked at; 0 for a set that is not one's own files
    num_train: int = 0  # images
    num_validation: int = 0
    num_test: int = 0
    layout: tuple[str, ...] = ()  # how the folders were understood, where not to the letter
    left_out: tuple[Tally, ...] = ()  # files that were not used, by reason
    used_otherwise: tuple[Tally, ...] = ()  # images that are not what lies in the file, by how
    num_copies: int = 0  # images equal to another one on the same side
    num_test_in_train: int = 0  # test images equal to a training image
    num_validation_in_train: int = 0
    num_in_two_classes: int = 0  # images equal to one of another class
    classes_without_train: tuple[str, ...] = ()
    classes_without_validation: tuple[str, ...] = ()
    classes_without_test: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()  # how the images were prepared, where the files decided it

    def table(self) -> list[Tally]:
        """Every count, with what it is of."""
        counts = [
            Tally("files found", self.num_found),
            Tally("images to train on", self.num_train),
            Tally("images to validate on", self.num_validation),
            Tally("images to test on", self.num_test),
        ]
        return [count for count in counts if count.number] + self._deviations()

    def deviations(self) -> list[str]:
        """What was not used, or used as something else: each in a few words."""
        return [*self.layout, *map(str, self._deviations())]

    def _deviations(self) -> list[Tally]:
        without = [
            Tally(f"classes without {side} images", len(classes), classes[:NUM_EXAMPLES])
            for side, classes in (
                ("training", self.classes_without_train),
                ("validation", self.classes_without_validation),
                ("test", self.classes_without_test),
            )
        ]
        counts = [
            *(tally._replace(what=f"not used: {tally.what}") for tally in self.left_out),
            *self.used_otherwise,
            Tally("images that equal another one of their side", self.num_copies),
            Tally("test images that equal a training image", self.num_test_in_train),
            Tally("validation images that equal a training image", self.num_validation_in_train),
            Tally("images that equal one of another class", self.num_in_two_classes),
            *without,
        ]
        return [count for count in counts if count.number]

    def summary(self) -> list[str]:
        """What was read, a line for each matter."""
        validation = f"{self.num_validation:,} to validate on, " if self.num_validation else ""
        found = f"{self.num_found:,} files found, " if self.num_found else ""
        return [
            f"images: {found}{self.num_train:,} to train on, {validation}"
            f"{self.num_test:,} to test on",
            *self.remarks,
        ]

    def require_none(self, root: str) -> None:
        """Raise `UserError` where anything was not used, or used as something else."""
        if found := self.deviations():
            raise UserError(
                f"--data.root {root}: {'; '.join(found)}; mend the folder, or leave out "
                f"--data.strict"
            )


NOTHING_READ = Reading()


def tallied(
    fates: Iterable[tuple[T, Iterable[str]]], name: Callable[[T], str] = str
) -> tuple[Tally, ...]:
    """How many things there are of each fate, and the first few by `name`, in order of the fates.

    The others are not kept.
    """
    counts: dict[str, int] = {}
    examples: dict[str, list[T]] = {}
    for thing, each in fates:
        for fate in each:
            counts[fate] = counts.get(fate, 0) + 1
            if counts[fate] <= NUM_EXAMPLES:
                examples.setdefault(fate, []).append(thing)
    return tuple(
        Tally(fate, count, tuple(printable(name(thing)) for thing in examples[fate]))
        for fate, count in sorted(counts.items())
    )


def printable(name: str) -> str:
    return name if name.isprintable() else repr(name)


def reading_from_dict(values: dict[str, Any]) -> Reading:
    """What `dataclasses.asdict` took apart. Raises as `as_written` expects for anything else."""
    taken: dict[str, Any] = {}
    for each in fields(Reading):
        value = values[each.name]
        if each.type is int:
            taken[each.name] = typed(value, int)
        elif each.name in ("left_out", "used_otherwise"):
            taken[each.name] = tuple(_tally(*typed(item, list)) for item in typed(value, list))
        else:
            taken[each.name] = strings(value)
    return Reading(**taken)


def _tally(what: Any, number: Any, examples: Any) -> Tally:
    return Tally(typed(what, str), typed(number, int), strings(examples))
