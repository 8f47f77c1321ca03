"""The pictures of the demo, how each is segmented, and how they are laid out on the sheet.

Plain data, no code of its own.

Every picture is a file of scikit-image's own wheel (``skimage/data``), in old and in current
releases alike.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

SHEET_WIDTH = 1800  # pixels; the same as in work/draw.py, which the host does not import
MARGIN, GAP = 48, 18
KINDS_TRIED = (5, 6, 7)


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to find the objects of one picture.

    Attributes:
        title: what the sheet and the table call it.
        file: name in scikit-image's data folder.
        crop: top, left, height and width of the part used, in pixels.
        signal: which channel shows the objects bright: ``bright``, ``dark`` (inverted) or ``blue``
            (blue minus red).
        background: width of the local threshold in pixels.
        margin: how far above the local mean an object is (0..1).
        split: least distance between the centres of two touching objects in pixels; 0 does not
            split.
        smallest: least area of an object in pixels.
        largest: greatest area of an object in pixels.
        holes: holes of fewer pixels are filled.
        sweep: the smoothing widths (pixels) that are tried, each in a task of its own.
    """

    title: str
    file: str
    crop: tuple[int, int, int, int]
    signal: str
    background: int
    margin: float
    split: int
    smallest: int
    largest: int
    holes: int
    sweep: tuple[float, ...]

    def settings(self) -> list[dict[str, Any]]:
        """List one plain dictionary per value of the sweep, for ``segment.py``."""
        return [{**asdict(self), "sigma": sigma} for sigma in self.sweep]


ROWS: tuple[tuple[Recipe, ...], ...] = (
    (
        Recipe(
            "Coins",
            "coins.png",
            (0, 0, 303, 384),
            "bright",
            151,
            0.06,
            12,
            200,
            6000,
            150,
            (0.5, 1.0, 1.5, 2.5),
        ),
        Recipe(
            "Galaxies",
            "hubble_deep_field.jpg",
            (60, 0, 520, 659),
            "bright",
            0,
            0.0,
            4,
            12,
            4000,
            150,
            (0.5, 1.0, 1.5, 2.0),
        ),
        Recipe(
            "Letters",
            "page.png",
            (0, 0, 191, 384),
            "dark",
            31,
            0.06,
            0,
            6,
            400,
            0,
            (0.2, 0.4, 0.6, 0.8),
        ),
    ),
    (
        Recipe(
            "Nuclei",
            "ihc.png",
            (200, 40, 300, 454),
            "blue",
            61,
            0.07,
            5,
            25,
            900,
            150,
            (1.0, 1.5, 2.0, 2.5),
        ),
        Recipe(
            "Gravel",
            "gravel.png",
            (0, 0, 300, 454),
            "bright",
            35,
            0.0,
            6,
            40,
            2500,
            12,
            (1.0, 1.5, 2.0, 2.5),
        ),
        Recipe(
            "Bricks",
            "brick.png",
            (0, 0, 330, 499),
            "dark",
            61,
            0.0,
            0,
            150,
            9000,
            150,
            (0.7, 1.0, 1.5, 2.0),
        ),
    ),
)


def panel_sizes(row: tuple[Recipe, ...]) -> list[tuple[int, int]]:
    """Return (width, height) in pixels of each panel of a row, which fills the sheet's width."""
    room = SHEET_WIDTH - 2 * MARGIN - GAP * (len(row) - 1)
    shapes = [recipe.crop[3] / recipe.crop[2] for recipe in row]
    widths = [round(room * shape / sum(shapes)) for shape in shapes[:-1]]
    return [(width, round(room / sum(shapes))) for width in [*widths, room - sum(widths)]]
