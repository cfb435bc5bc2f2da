"""What image sets need of the processes of a launch, which share their work."""

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol


class Ranks(Protocol):
    """Processes that do one thing together; all must make the same calls in the same order."""

    index: int
    number: int
    is_first_on_machine: bool

    def share(self, text: str) -> str:
        """The text that rank 0 gives, to all."""

    def any(self, is_so: bool) -> bool:
        """Whether it is so for one of them."""

    def first_on_each_machine(self) -> AbstractContextManager[None]:
        """One process of each machine does the block, and then the others."""


class _OneRank:
    """A process by itself."""

    index, number = 0, 1
    is_first_on_machine = True

    def share(self, text: str) -> str:
        return text

    def any(self, is_so: bool) -> bool:
        return is_so

    def first_on_each_machine(self) -> AbstractContextManager[None]:
        return nullcontext()


ALONE: Ranks = _OneRank()
