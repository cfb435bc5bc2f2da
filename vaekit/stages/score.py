"""How strange a person's own files are to a run, as a table."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from vaekit.errors import UserError, say
from vaekit.images.inputs import Inputs
from vaekit.runs.run import Run
from vaekit.runs.scores import Scores, score
from vaekit.stages.tables import csv_text, write_csv


class Scored(NamedTuple):
    """Images and how strange they are."""

    inputs: Inputs
    scores: Scores


def score_files(
    run: Run,
    given: Sequence[Path],
    output: Path | None,
    k: int,
    false_alarms: float,
    skip_unreadable: bool = False,
) -> Scored:
    """Write CSV, a row an image: file, strangeness, percentile, strange, and what they are made of.

    `strange` is 1 where an image is stranger than but a share `false_alarms` of images like the
    test images would be. Without an output the table goes to standard output.
    """
    if output is not None and output.suffix.lower() != ".csv":
        raise UserError(f"--output {output}: expected a name that ends in .csv")
    latents, images = run.latents, run.images  # before files are read
    inputs = run.inputs(given, skip_unreadable)
    scores = score(run.weights, latents, images, inputs.pixels, k, false_alarms)
    columns: dict[str, Any] = {
        "file": inputs.files,
        "strangeness": scores.strangeness,
        "percentile": scores.percentile,
        "strange": scores.is_strange.astype(int),
        "distance": scores.distance,
        "mse": scores.mse,
        "reconstruction": scores.reconstruction,
        "kl": scores.kl,
    }
    if output is None:
        sys.stdout.write(csv_text(columns))
    else:
        write_csv(output, [columns])
    if scores.smallest_share > false_alarms:
        say(
            f"note: {len(latents.test):,} test images can tell no share of false alarms below "
            f"{scores.smallest_share:.3g}: an image is called strange where it is stranger than "
            f"all of them"
        )
    say(
        f"{scores.is_strange.sum():,} of {len(inputs.pixels):,} images are strange: more than "
        f"{scores.threshold:.2f} deviations farther, or reconstructed worse, than training images"
    )
    return Scored(inputs, scores)
