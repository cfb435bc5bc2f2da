"""What a report draws: loss curves, a map of latents, a traversal, confusion counts."""

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from PIL import Image

from vaekit.images.pictures import image_grid

WIDTH = 5.2  # inches; with these font sizes, legible on a phone
DPI = 200
FONT_SIZE = 11
INK, GREY, RULE = "#222222", "#999999", "#dddddd"

# Found by search so that any two differ by at least 0.13 in OKLab, in normal vision and with
# full protanopia, deuteranopia or tritanopia (simulated after Machado et al., 2009). Classes
# beyond ten take the same colours with the next marker.
CLASS_COLOURS = (
    "#2195e7",
    "#f4249c",
    "#208329",
    "#810eea",
    "#aaae50",
    "#7b1b0d",
    "#29d5d9",
    "#2b2092",
    "#c1ed18",
    "#241323",
)
CLASS_MARKERS = ("o", "^", "s", "D", "v", "P", "X", "<", ">", "*")
BLUE, ORANGE = "#2b6cb0", "#e76300"

MAX_NAME_ON_MAP = 3  # longer names would cover the points; the legend has them
MAX_LEGEND = 100  # classes: more are no legend, and told by pointing at an image
MIN_COUNT_SIZE = 6  # points: counts smaller than this are left out
MAX_ERROR_SHARE = 0.1  # share of a class, in one wrong cell, that is drawn in full orange
MAX_NAME_LENGTH = 16
LETTER_WIDTH = 0.62  # of a font size, on average

Quantity = Literal["loss", "reconstruction", "kl"]


def loss_curve(
    rows: Sequence[Mapping[str, Any]], quantity: Quantity, reference: float | None = None
) -> Image.Image:
    """One quantity of the loss over the epochs, on the training and on the test set.

    `rows` are those of metrics.jsonl. The row before training is left out, and the curves enter
    the picture from outside, where the first fifth of the epochs would flatten the rest.
    `reference` is a test figure to draw beside them.
    """
    trained = [row for row in rows if row["epoch"] > 0]
    settled = trained[len(trained) // 5 :]
    epochs = [row["epoch"] for row in trained]
    figure = Figure((WIDTH, 0.72 * WIDTH), DPI, layout="constrained")
    axes = figure.add_subplot()
    for split, colour, marker in (("train", ORANGE, "s"), ("test", BLUE, "o")):
        values = [row[f"{split}_{quantity}"] for row in trained]
        label = f"{split}  {values[-1]:.2f}"
        axes.plot(
            epochs,
            values,
            color=colour,
            linewidth=2,
            marker=marker,
            markersize=3.5 if len(trained) <= 40 else 0,
            label=label,
        )
    if reference is not None:
        label = f"reference, test  {reference:.2f}"
        axes.axhline(reference, color=GREY, linewidth=1.2, linestyle=(0, (4, 3)), label=label)
    shown = [row[f"{split}_{quantity}"] for row in settled for split in ("train", "test")]
    shown += [] if reference is None else [reference]
    margin = 0.08 * (max(shown) - min(shown)) or 1.0
    axes.set_ylim(min(shown) - margin, max(shown) + margin)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
    axes.set_xlabel("epoch", fontsize=FONT_SIZE, color=INK)
    axes.set_ylabel("nats per image", fontsize=FONT_SIZE, color=INK)
    axes.tick_params(labelsize=FONT_SIZE, colors=INK, color=RULE)
    axes.grid(axis="y", color=RULE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(RULE)
    axes.legend(edgecolor="none", fontsize=FONT_SIZE, labelcolor=INK)
    return _render(figure)


class MapPicture(NamedTuple):
    """A map, and where in it the points lie."""

    image: Image.Image
    places: NDArray[np.float64]  # [N, 2], shares of its width and height, from the upper left


def latent_map(
    points: NDArray[np.float32], labels: NDArray[np.int64] | None, class_names: Sequence[str]
) -> MapPicture:
    """A scatter of `points` [N, 2], coloured by `labels` [N] with a legend where there are any."""
    width, height = np.ptp(points, axis=0)
    map_height = WIDTH * float(np.clip(height / width, 0.5, 1.5)) if width else WIDTH
    names = _drawable(class_names) if labels is not None else []
    has_legend = len(names) <= MAX_LEGEND
    columns = _legend_columns(names)
    legend_height = 0.24 * math.ceil(len(names) / columns) if has_legend else 0
    figure = Figure((WIDTH, map_height + legend_height), DPI, layout="constrained")
    axes = figure.add_subplot(aspect="equal")
    axes.margins(0.02)
    axes.set_axis_off()
    # Distances in such a map have no unit; all that counts is what lies near what.
    size = float(np.clip(12_000 / len(points), 3, 30))
    if labels is None:
        x, y = points.T
        axes.scatter(x, y, s=size, color=CLASS_COLOURS[0], alpha=0.7, linewidths=0)
        return _placed(figure, axes, points)
    for style, marker in enumerate(CLASS_MARKERS):
        chosen = labels // len(CLASS_COLOURS) % len(CLASS_MARKERS) == style
        colours = [_class_colour(label) for label in labels[chosen]]
        x, y = points[chosen].T
        axes.scatter(x, y, s=size, c=colours, marker=marker, alpha=0.8, linewidths=0)
    if max(map(len, names)) <= MAX_NAME_ON_MAP:
        for label in np.unique(labels):
            x, y = _heart(points[labels == label])
            axes.text(
                x,
                y,
                names[label],
                fontsize=FONT_SIZE + 1,
                fontweight="bold",
                color=INK,
                horizontalalignment="center",
                verticalalignment="center",
                path_effects=[withStroke(linewidth=4, foreground="white")],
                parse_math=False,
            )
    if has_legend:
        legend = figure.legend(
            [_legend_marker(label) for label in range(len(names))],
            names,
            loc="outside lower center",
            ncols=columns,
            frameon=False,
            fontsize=FONT_SIZE,
            labelcolor=INK,
            handlelength=1.0,
            handletextpad=0.2,
            columnspacing=1.0,
        )
        for text in legend.get_texts():
            text.set_parse_math(False)
    return _placed(figure, axes, points)


def _placed(figure: Figure, axes: Axes, points: NDArray[np.float32]) -> MapPicture:
    image = _render(figure)  # which lays the axes out
    shares = axes.transData.transform(points) / figure.bbox.size
    return MapPicture(image, np.stack([shares[:, 0], 1 - shares[:, 1]], axis=1))


def _heart(points: NDArray[np.float32]) -> NDArray[np.float32]:
    """The one of `points` [n, 2] that lies closest to a third of them.

    Of a class in two clusters it is in the larger one, where a median would fall between.
    """
    some = points[:: math.ceil(len(points) / 1000)]
    distances = np.linalg.norm(some[:, None] - some[None], axis=-1)
    third = len(some) // 3
    heart: NDArray[np.float32] = some[np.partition(distances, third, axis=1)[:, third].argmin()]
    return heart


def latent_traversal(
    images: NDArray[np.uint8], row_labels: Sequence[str], column_labels: Sequence[str]
) -> Image.Image:
    """Decoded `images` [L, S, C, H, W]: a row a dimension, a column a step along it."""
    num_rows, num_steps = images.shape[:2]
    sheet = image_grid(images.reshape(-1, *images.shape[2:]), num_steps).convert("RGB")
    # Laid out in pixels, so that the images are not resampled.
    font_pixels = sheet.width // 30
    left = round((LETTER_WIDTH * max(map(len, row_labels)) + 0.8) * font_pixels)
    top = 2 * font_pixels
    width, height = left + sheet.width, top + sheet.height
    figure = Figure((width / DPI, height / DPI), DPI)
    figure.figimage(np.asarray(sheet), left, 0)
    points = font_pixels * 72 / DPI
    texts = [
        (left - 0.5 * font_pixels, top + (row + 0.5) / num_rows * sheet.height, label, "right")
        for row, label in enumerate(row_labels)
    ]
    texts += [
        (left + (step + 0.5) / num_steps * sheet.width, 0.5 * top, label, "center")
        for step, label in enumerate(column_labels)
    ]
    for x, y, label, alignment in texts:
        figure.text(
            x / width,
            1 - y / height,
            label,
            fontsize=points,
            color=INK,
            horizontalalignment=alignment,
            verticalalignment="center",
        )
    return _render(figure, num_colours=None)


def confusion_counts(counts: NDArray[np.int64], class_names: Sequence[str]) -> Image.Image:
    """A confusion matrix [K, K], rows true and columns predicted, with the counts in its cells.

    The diagonal is blue, errors are orange, by their share of the true class. The counts are
    left out where there are too many classes for them to be legible.
    """
    num_classes = len(counts)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    right = np.eye(num_classes, dtype=bool)
    strength = np.where(right, 0.9 * shares, np.sqrt(np.minimum(shares / MAX_ERROR_SHARE, 1)))
    hue = np.where(right[..., None], to_rgb(BLUE), to_rgb(ORANGE))
    colours = 1 - strength[..., None] * (1 - hue)

    figure = Figure((WIDTH, WIDTH), DPI, layout="constrained")
    axes = figure.add_subplot(aspect="equal")
    axes.pcolormesh(colours, edgecolors="white", linewidth=10 / max(num_classes, 10))
    axes.invert_yaxis()
    cell = 0.7 * WIDTH * 72 / num_classes  # points; the rest is for the names
    count_size = min(FONT_SIZE, 0.8 * cell, cell / (LETTER_WIDTH * len(str(counts.max()))))
    if count_size >= MIN_COUNT_SIZE:
        for (row, column), count in np.ndenumerate(counts):
            on_dark = row == column and strength[row, column] > 0.5
            axes.text(
                column + 0.5,
                row + 0.5,
                str(count),
                fontsize=count_size,
                color=GREY if count == 0 else "white" if on_dark else INK,
                horizontalalignment="center",
                verticalalignment="center",
            )
    names = _drawable(class_names)
    name_size = float(np.clip(0.8 * cell, 3.5, FONT_SIZE))
    fits_upright = max(map(len, names)) * LETTER_WIDTH * name_size <= cell
    centres = np.arange(num_classes) + 0.5
    axes.set_xticks(centres, names, rotation=0 if fits_upright else 90, parse_math=False)
    axes.set_yticks(centres, names, parse_math=False)
    axes.tick_params(length=0, labelsize=name_size, colors=INK)
    axes.set_xlabel("predicted", fontsize=FONT_SIZE, color=INK)
    axes.set_ylabel("true", fontsize=FONT_SIZE, color=INK)
    axes.spines[:].set_visible(False)
    return _render(figure)


def _render(figure: Figure, num_colours: int | None = 256) -> Image.Image:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, facecolor="white")
    image = Image.open(buffer).convert("RGB")
    # A drawing has few colours: with a palette the file is a third of the size.
    return image if num_colours is None else image.quantize(num_colours, dither=Image.Dither.NONE)


def _class_colour(label: int) -> str:
    return CLASS_COLOURS[label % len(CLASS_COLOURS)]


def _legend_marker(label: int) -> Line2D:
    marker = CLASS_MARKERS[label // len(CLASS_COLOURS) % len(CLASS_MARKERS)]
    return Line2D([], [], color=_class_colour(label), marker=marker, linestyle="", markersize=7)


def _legend_columns(names: Sequence[str]) -> int:
    """As many as fit the width, with 0.4 inches for a marker and the space around it."""
    longest = max(map(len, names), default=1)
    most = int(WIDTH / (0.4 + longest * LETTER_WIDTH * FONT_SIZE / 72))
    return math.ceil(len(names) / math.ceil(len(names) / most)) if names else 1


def _drawable(class_names: Sequence[str]) -> list[str]:
    """Names as a picture can show them: not too long, by number where the font has no glyphs."""
    font = get_font(findfont("DejaVu Sans"))  # comes with matplotlib
    names = []
    for label, name in enumerate(class_names):
        if not all(font.get_char_index(ord(character)) for character in name):
            name = f"#{label}"
        short = len(name) <= MAX_NAME_LENGTH
        names.append(name if short else f"{name[: MAX_NAME_LENGTH - 1]}…")
    return names
