"""What an examination found, and how it is shown."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

Verdict = Literal["ok", "note", "problem"]


class Finding(NamedTuple):
    """One line of an examination."""

    subject: str  # a file of the run, or a part of the machine
    verdict: Verdict
    text: str  # what it is; for a problem what is wrong and what to do about it


def as_lines(findings: Sequence[Finding]) -> list[str]:
    """A line for each, its subject and its text in columns."""
    width = max((len(_printable(finding.subject)) for finding in findings), default=0)
    return [
        f"{finding.verdict:<8} {_printable(finding.subject):<{width}}  {_printable(finding.text)}"
        for finding in findings
    ]


def num_of(verdict: Verdict, findings: Sequence[Finding]) -> int:
    return sum(finding.verdict == verdict for finding in findings)


def _printable(text: str) -> str:
    """On one line, with what no terminal should be sent (controls, broken names) spelt out."""
    spaced = " ".join(text.split())
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape", "surrogatepass").decode()
        for each in spaced
    )
