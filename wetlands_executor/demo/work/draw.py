"""Draw the demo's picture.

Panels of the segmented pictures, the plane of the features, the timeline of the workers.

Runs in the demo's second environment (numpy and Pillow). One task draws one panel (they run side by
side), a last one puts the sheet together. Lengths are pixels of the finished sheet.
"""

from __future__ import annotations

import io
import time
import zlib
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from whereabouts import whereabouts

Array = Any
Colour = tuple[int, int, int]

BACKGROUND: Colour = (14, 17, 27)
CARD: Colour = (23, 28, 43)
RULE: Colour = (44, 52, 76)
TEXT: Colour = (236, 239, 247)
MUTED: Colour = (146, 156, 184)
KINDS: tuple[Colour, ...] = (
    (76, 201, 240),
    (255, 183, 77),
    (255, 92, 122),
    (94, 226, 160),
    (160, 124, 255),
    (255, 233, 122),
    (255, 138, 101),
    (144, 202, 110),
)
STEPS: dict[str, Colour] = {
    "import": (84, 94, 124),
    "segment": (240, 128, 92),
    "measure": (76, 201, 240),
    "cluster": (255, 214, 102),
    "draw": (148, 130, 255),
}
MARGIN, GAP, WIDTH = 48, 18, 1800
_FINER = 3  # outlines are drawn this many times larger and scaled down, which smooths them


def panel(found: dict[str, Any], kinds: list[int], width: int, height: int) -> dict[str, Any]:
    """Draw one picture with its objects filled and outlined in the colours of their kinds.

    Args:
        found: ``height``, ``width``, ``picture`` and ``labels``, as ``segment.py`` returns them.
        kinds: the kind of each object, in the order of the labels.
        width: of the panel.
        height: of the panel.

    Returns:
        ``width``, ``height``, ``pixels`` (zlib of uint8, height x width x 3) and ``where``.
    """
    started = time.time()
    shape = (found["height"], found["width"])
    picture = Image.frombytes("RGB", (shape[1], shape[0]), zlib.decompress(found["picture"]))
    labels = np.frombuffer(zlib.decompress(found["labels"]), np.int32).reshape(shape)
    kind_of = np.array([0, *(kind % len(KINDS) + 1 for kind in kinds)], dtype=np.uint8)
    large = _smooth(kind_of[labels], width * _FINER, height * _FINER)
    alpha = np.where(large > 0, 70, 0).astype(np.uint8)
    alpha[_outline(large, labels)] = 255
    palette = np.array([BACKGROUND, *KINDS], dtype=np.uint8)
    overlay = np.dstack([palette[large], alpha])
    base = Image.blend(picture, picture.convert("L").convert("RGB"), 0.35).resize(
        (width, height), Image.Resampling.LANCZOS
    )
    base = Image.blend(base, Image.new("RGB", base.size, BACKGROUND), 0.12)
    result = base.convert("RGBA")
    result.alpha_composite(_shrunk(overlay, width, height))
    return {
        "width": width,
        "height": height,
        "pixels": zlib.compress(result.convert("RGB").tobytes(), 1),
        "where": whereabouts(started),
    }


def _smooth(kinds: Array, width: int, height: int) -> Array:
    """Enlarge a map of kinds (0 is background) without the steps of its pixels.

    Scale each kind's mask, let the strongest win.
    """
    present = np.unique(kinds)
    best = np.zeros((height, width), dtype=np.uint8)
    result = np.zeros((height, width), dtype=np.uint8)
    for kind in present:
        mask = Image.fromarray(np.where(kinds == kind, 255, 0).astype(np.uint8)).resize(
            (width, height), Image.Resampling.BICUBIC
        )
        weight = np.asarray(mask)
        result = np.where(weight > best, kind, result)
        best = np.maximum(weight, best)
    return result


def _outline(large: Array, labels: Array) -> Array:
    """Mark a band along the border of every object, on its inside, about 1.5 sheet pixels wide."""
    rows = np.arange(large.shape[0]) * labels.shape[0] // large.shape[0]
    columns = np.arange(large.shape[1]) * labels.shape[1] // large.shape[1]
    number = labels[rows][:, columns]
    edge = np.zeros(large.shape, dtype=bool)
    for reach in range(1, _FINER + 2):
        for axis in (0, 1):
            for step in (reach, -reach):
                other = np.roll(large, step, axis)
                edge |= other != large
                # where objects of one kind touch, their numbers tell them apart; the line is drawn
                # on both sides
                if reach < _FINER:
                    beside = np.roll(number, step, axis)
                    edge |= (beside != number) & (beside > 0) & (number > 0)
    return edge & (large > 0)


def _shrunk(overlay: Array, width: int, height: int) -> Any:
    """Scale an overlay (RGBA) down to a picture without dark fringes.

    Colours weigh by their opacity.
    """
    pixels = overlay.astype(np.float32).reshape(height, _FINER, width, _FINER, 4)
    weight = pixels[..., 3:]
    alpha = weight.mean(axis=(1, 3))
    colour = (pixels[..., :3] * weight).mean(axis=(1, 3)) / np.maximum(alpha, 1e-6)
    return Image.fromarray(np.dstack([colour, alpha]).round().astype(np.uint8))


def sheet(plan: dict[str, Any]) -> dict[str, Any]:
    """Put the finished sheet together.

    Args:
        plan: ``rows`` (lists of panels, each with ``title``, ``note`` and what ``panel`` returned),
            ``cluster`` (what ``measure.cluster`` returned), ``runs`` (``step``, ``lane``,
            ``started``, ``finished``: one bar of the timeline each), ``lanes`` (``title`` and
            ``note`` of each worker), ``title``, ``subtitle`` and ``footer`` (pairs of a colour's
            step and a line).

    Returns:
        ``png``: the file, and ``where``.
    """
    started = time.time()
    rows_height = sum(row[0]["height"] + 46 for row in plan["rows"])
    height = 150 + rows_height + 24 + 396 + 34 + 34 * len(plan["footer"]) + 30
    image = Image.new("RGB", (WIDTH, height), BACKGROUND)
    pen = ImageDraw.Draw(image)
    _text(pen, (MARGIN, 40), plan["title"], 40, TEXT, bold=True)
    _text(pen, (MARGIN, 98), plan["subtitle"], 22, MUTED)
    top = 150
    for row in plan["rows"]:
        _gallery(image, pen, row, top)
        top += row[0]["height"] + 46
    top += 24
    _legend(pen, plan["cluster"], (MARGIN, top, MARGIN + 400, top + 396))
    _plane(image, pen, plan["cluster"], (MARGIN + 418, top, MARGIN + 958, top + 396))
    _timeline(pen, plan, (MARGIN + 976, top, WIDTH - MARGIN, top + 396))
    top += 396 + 34
    for step, line in plan["footer"]:
        pen.ellipse((MARGIN, top + 5, MARGIN + 12, top + 17), fill=STEPS.get(step, RULE))
        _text(pen, (MARGIN + 26, top), line, 18, MUTED)
        top += 34
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return {"png": buffer.getvalue(), "where": whereabouts(started)}


def _font(size: float) -> Any:
    """Give Pillow's own outline font, which needs no font on the machine."""
    return ImageFont.load_default(size)


def _text(
    pen: Any,
    at: tuple[float, float],
    words: str,
    size: float,
    colour: Colour,
    *,
    anchor: str = "la",
    bold: bool = False,
) -> None:
    """Write one line of text."""
    pen.text(
        at,
        words,
        fill=colour,
        font=_font(size),
        anchor=anchor,
        stroke_width=1 if bold else 0,
        stroke_fill=colour,
    )


def _gallery(image: Any, pen: Any, row: list[dict[str, Any]], top: int) -> None:
    """Place one row of panels with their captions below."""
    left = MARGIN
    for item in row:
        picture = Image.frombytes(
            "RGB", (item["width"], item["height"]), zlib.decompress(item["pixels"])
        )
        image.paste(picture, (left, top), _rounded(picture.size, 10))
        base = top + item["height"] + 8
        _text(pen, (left + 2, base), item["title"], 20, TEXT)
        _text(pen, (left + item["width"] - 2, base + 2), item["note"], 17, MUTED, anchor="ra")
        left += item["width"] + GAP


def _rounded(size: tuple[int, int], radius: int) -> Any:
    """Make a mask with round corners."""
    mask = Image.new("L", (size[0] * 2, size[1] * 2), 0)
    ImageDraw.Draw(mask).rounded_rectangle(
        (0, 0, size[0] * 2 - 1, size[1] * 2 - 1), radius * 2, fill=255
    )
    return mask.resize(size, Image.Resampling.LANCZOS)


def _card(pen: Any, box: tuple[int, int, int, int], title: str, note: str) -> None:
    """Draw the background and the heading of one card of the bottom row."""
    pen.rounded_rectangle(box, 12, fill=CARD)
    _text(pen, (box[0] + 22, box[1] + 18), title, 21, TEXT)
    _text(pen, (box[2] - 22, box[1] + 21), note, 16, MUTED, anchor="ra")


def _legend(pen: Any, cluster: dict[str, Any], box: tuple[int, int, int, int]) -> None:
    """List the kinds with their colours, names and sizes."""
    sizes = cluster["sizes"]
    _card(pen, box, "Kinds of object", f"{sum(sizes):,} in all")
    step = min(66, (box[3] - box[1] - 84) // len(sizes))
    for kind, (name, size) in enumerate(zip(cluster["names"], sizes, strict=True)):
        colour, y = KINDS[kind % len(KINDS)], box[1] + 66 + kind * step
        pen.rounded_rectangle((box[0] + 22, y + 2, box[0] + 42, y + 22), 5, fill=colour)
        _text(pen, (box[0] + 56, y), name, 19, TEXT)
        _text(pen, (box[2] - 22, y + 1), f"{size:,}", 18, MUTED, anchor="ra")
        length = (box[2] - box[0] - 78) * size / max(sizes)
        pen.rounded_rectangle((box[0] + 56, y + 31, box[2] - 22, y + 36), 2, fill=RULE)
        pen.rounded_rectangle(
            (box[0] + 56, y + 31, box[0] + 56 + max(6, length), y + 36), 2, fill=colour
        )


def _plane(image: Any, pen: Any, cluster: dict[str, Any], box: tuple[int, int, int, int]) -> None:
    """Draw every object as a point in the plane of the first two principal components.

    The directions of the features are drawn as well.
    """
    share = cluster["explained"]
    _card(pen, box, "Feature space", f"first two components, {sum(share):.0%} of the variance")
    points = np.array(cluster["points"])
    kinds = np.concatenate([np.array(part, dtype=int) for part in cluster["kinds"]])
    left, top, right, bottom = box[0] + 24, box[1] + 58, box[2] - 24, box[3] - 22
    width, height = right - left, bottom - top
    reach = np.percentile(np.abs(points), 99.5, axis=0) * 1.08
    places = np.clip(points / reach, -1, 1) * (width / 2 - 8, -(height / 2 - 8)) + (
        width / 2,
        height / 2,
    )
    cloud = Image.new("RGB", (width * _FINER, height * _FINER), CARD)
    brush = ImageDraw.Draw(cloud, "RGBA")
    brush.line(
        (0, height * _FINER // 2, width * _FINER, height * _FINER // 2), fill=RULE, width=_FINER
    )
    brush.line(
        (width * _FINER // 2, 0, width * _FINER // 2, height * _FINER), fill=RULE, width=_FINER
    )
    for index in np.random.default_rng(0).permutation(len(places)):
        x, y = places[index] * _FINER
        radius = 3.4 * _FINER
        brush.ellipse(
            (x - radius, y - radius, x + radius, y + radius),
            fill=(*KINDS[kinds[index] % len(KINDS)], 170),
        )
    image.paste(cloud.resize((width, height), Image.Resampling.LANCZOS), (left, top))
    _directions(
        pen, cluster["axes"], (left + width / 2, top + height / 2), (width * 0.40, height * 0.40)
    )


def _directions(
    pen: Any, axes: list[Any], centre: tuple[float, float], scale: tuple[float, float]
) -> None:
    """Draw one line per feature, labelled at its end.

    Labels that would meet are moved apart downwards.
    """
    taken: list[tuple[float, float, float, float]] = []
    for name, x, y in axes:
        end = (centre[0] + x * scale[0], centre[1] - y * scale[1])
        pen.line((*centre, *end), fill=TEXT, width=2)
        pen.ellipse((end[0] - 3, end[1] - 3, end[0] + 3, end[1] + 3), fill=TEXT)
        width = _font(16).getlength(name)
        x0 = end[0] + 8 if x >= 0 else end[0] - 8 - width
        y0 = end[1] - 10
        while any(
            x0 < box[2] and box[0] < x0 + width and y0 < box[3] and box[1] < y0 + 20
            for box in taken
        ):
            y0 += 4
        taken.append((x0, y0, x0 + width, y0 + 20))
        pen.rounded_rectangle((x0 - 4, y0 - 2, x0 + width + 4, y0 + 20), 5, fill=BACKGROUND)
        _text(pen, (x0, y0), name, 16, TEXT)


def _timeline(pen: Any, plan: dict[str, Any], box: tuple[int, int, int, int]) -> None:
    """Draw what each worker did when."""
    runs, lanes = plan["runs"], plan["lanes"]
    first = min(run["started"] for run in runs)
    span = max(run["finished"] for run in runs) - first or 1.0
    _card(pen, box, "Who did what when", f"{span:.1f} s until this sheet")
    left, right, top, bottom = box[0] + 150, box[2] - 24, box[1] + 94, box[3] - 46
    x = box[0] + 22.0
    for step, colour in STEPS.items():
        pen.rounded_rectangle((x, box[1] + 58, x + 14, box[1] + 72), 3, fill=colour)
        _text(pen, (x + 22, box[1] + 55), step, 16, MUTED)
        x += 22 + _font(16).getlength(step) + 26
    ticks = max(1, round(span / 6 * 2) / 2)
    for number in range(int(span / ticks) + 1):
        at = left + (right - left) * number * ticks / span
        pen.line((at, top, at, bottom), fill=RULE)
        _text(pen, (at, bottom + 10), f"{number * ticks:g} s", 15, MUTED, anchor="ma")
    step_height = (bottom - top) / len(lanes)
    for lane, told in enumerate(lanes):
        y, tall = top + lane * step_height, min(34.0, step_height - 8)
        middle = y + step_height / 2
        _text(pen, (box[0] + 22, middle - 1), told["title"], 16, TEXT, anchor="ld")
        _text(pen, (box[0] + 22, middle + 1), told["note"], 13, MUTED, anchor="la")
        for run in (run for run in runs if run["lane"] == lane):
            start, end = (
                left + (right - left) * (run[key] - first) / span for key in ("started", "finished")
            )
            pen.rounded_rectangle(
                (start, middle - tall / 2, max(end - 2, start + 2), middle + tall / 2),
                3,
                fill=STEPS[run["step"]],
            )
