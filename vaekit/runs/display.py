"""A run as a notebook shows it: a line of figures, and its pictures."""

from base64 import b64encode
from collections.abc import Iterator
from contextlib import suppress
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from vaekit.errors import UserError
from vaekit.runs.folder import RunFolder
from vaekit.storage.damage import Damaged
from vaekit.storage.pictures import require_png

if TYPE_CHECKING:
    from vaekit.runs.run import Run

FIGURES = ("loss", "tsne", "confusion")  # those of the report that say most
HEIGHT = 260  # pixels of a picture


def as_html(run: "Run") -> str:
    """The run's pictures in a row, embedded. What is missing or damaged is left out."""
    pictures = "".join(
        f'<figure style="margin:0"><img src="data:image/png;base64,'
        f'{b64encode(path.read_bytes()).decode()}" alt="{title}" '
        f'style="height:{HEIGHT}px;max-width:100%;object-fit:contain">'
        f"<figcaption>{title}</figcaption></figure>"
        for title, path in pictures_of(run.folder)
        if _is_whole(path)
    )
    return (
        f"<div><p><b>{escape(repr(run))}</b> {escape(_said(run))}</p>"
        f'<div style="display:flex;flex-wrap:wrap;gap:12px">{pictures}</div></div>'
    )


def _said(run: "Run") -> str:
    """What there is to say in a line of a run that may be of any age and in any state."""
    try:
        config, rows = run.config, run.metrics
        if not rows:
            return "not trained yet"
        said = [f"epoch {rows[-1]['epoch']} of {config.epochs}"]
        said.append(f"test loss {rows[-1]['test_loss']:.2f}")
    except UserError as error:
        return str(error)
    with suppress(UserError):  # a published run has an SVM, and not the latents it is of
        if run.has_svm:
            said.append(f"SVM accuracy {run.svm_metrics['accuracy']:.4f}")
    return ", ".join(said)


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
