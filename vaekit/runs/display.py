"""A run as a notebook shows it: a line of figures, and its pictures."""

from base64 import b64encode
from collections.abc import Iterator
from html import escape
from pathlib import Path

from vaekit.runs.folder import RunFolder
from vaekit.storage.damage import Damaged
from vaekit.storage.pictures import require_png

FIGURES = ("loss", "tsne", "confusion")  # those of the report that say most
HEIGHT = 260  # pixels of a picture


def as_html(name: str, summary: str, folder: RunFolder) -> str:
    """A line of text, and below it the run's pictures in a row, embedded.

    What is missing or damaged is left out.
    """
    pictures = "".join(
        f'<figure style="margin:0"><img src="data:image/png;base64,'
        f'{b64encode(path.read_bytes()).decode()}" alt="{title}" '
        f'style="height:{HEIGHT}px;max-width:100%;object-fit:contain">'
        f"<figcaption>{title}</figcaption></figure>"
        for title, path in pictures_of(folder)
        if _is_whole(path)
    )
    return (
        f"<div><p><b>{escape(name)}</b> {escape(summary)}</p>"
        f'<div style="display:flex;flex-wrap:wrap;gap:12px">{pictures}</div></div>'
    )


def pictures_of(folder: RunFolder) -> Iterator[tuple[str, Path]]:
    """The newest samples and reconstructions, and the figures that there are."""
    for title in ("samples", "reconstructions"):
        if newest := max((folder.path / title).glob("epoch-*.png"), default=None):
            yield title, newest
    for title in FIGURES:
        if (path := folder.figures / f"{title}.png").is_file():
            yield title, path


def _is_whole(path: Path) -> bool:
    try:
        require_png(path)
    except Damaged:
        return False
    return True
