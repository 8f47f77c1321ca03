"""The figures of a JSON file as a picture.

One panel per case, one bar per system, from ours to its multiple of ours on a logarithmic scale.

Needs matplotlib (the extra ``benchmarks``), which is imported here and nowhere else.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

#: The cases of the picture, if they were measured.
PANELS = (
    "roundtrip-pinned",
    "no-ops",
    "map",
    "map-10k",
    "behind-long",
    "makespan",
    "asyncio-executor",
    "start",
    "killed",
)

OURS, SLOWER, FASTER, FLOOR = "#0b7a75", "#b8bcc4", "#d1495b", "#e3b23c"
#: What no system of the comparison can be: measured or computed floors, and threads, which share
#: one interpreter.
FLOORS = ("pipe", "ideal", "threads")


def draw(results: Mapping[str, Any], path: str) -> None:
    """Write the picture; the ending of ``path`` decides its format."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    # Text stays text, and the file is the same for the same figures.
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "benchmarks", "font.size": 8})
    panels = [(name, rows) for name in PANELS if (rows := _rows(results["cases"].get(name)))]
    if not panels:
        raise ValueError("none of the cases of the picture was measured: " + ", ".join(PANELS))
    columns = min(3, len(panels))
    lines = -(-len(panels) // columns)
    tallest = max(len(rows) for _name, rows in panels)
    figure, axes = plt.subplots(
        lines,
        columns,
        figsize=(5 * columns, (0.17 * tallest + 0.6) * lines + 0.3),
        squeeze=False,
        layout="constrained",
    )
    for axis, (name, rows) in zip(axes.flat, panels, strict=False):
        _panel(axis, results["cases"][name]["title"], rows)
    for axis in list(axes.flat)[len(panels) :]:
        axis.set_axis_off()
    where = results["machine"]
    figure.suptitle(
        "Time as a multiple of CondaEnvExecutor's, to the right slower than it, to the left "
        "faster. Medians of interleaved runs; "
        f"Python {where['python']}, {where['system']}, {where['cores']} cores",
        fontsize=9,
    )
    figure.savefig(path, dpi=90, metadata={"Date": None} if path.endswith(".svg") else None)
    plt.close(figure)
    if path.endswith(".png"):
        from PIL import Image  # comes with matplotlib

        with Image.open(path) as picture:
            small = picture.convert("RGB").quantize(48)
        small.save(path, optimize=True)


def _rows(case: Mapping[str, Any] | None) -> list[tuple[str, float, str]]:
    """Return (title, ratio to ours, colour), the slowest first, for it is drawn at the bottom."""
    if case is None:
        return []
    figure = next(iter(case["figures"]))
    medians = {
        name: statistics.median(entry["figures"][figure])
        for name, entry in case["systems"].items()
        if entry["figures"].get(figure)
    }
    base = medians.get("ours")
    if not base or len(medians) < 2:
        return []
    rows = []
    for name, value in medians.items():
        ratio = value / base
        colour = (
            OURS
            if name == "ours"
            else FLOOR
            if name in FLOORS
            else SLOWER
            if ratio >= 1
            else FASTER
        )
        rows.append((case["systems"][name]["title"], ratio, colour))
    return sorted(rows, key=lambda row: -row[1])


def _panel(axis: Any, title: str, rows: list[tuple[str, float, str]]) -> None:
    places = range(len(rows))
    axis.barh(
        places,
        [abs(ratio - 1) for _title, ratio, _colour in rows],
        left=[min(1, ratio) for _title, ratio, _colour in rows],
        color=[colour for *_rest, colour in rows],
        height=0.7,
    )
    axis.set_xscale("log")
    # Room for the figures beside the bars, in parts of the whole width.
    span = rows[0][1] / rows[-1][1]
    axis.set_xlim(rows[-1][1] / max(2.0, span**0.22), rows[0][1] * max(2.0, span**0.22))
    axis.set_yticks(places, [title for title, *_rest in rows])
    for place, (_title, ratio, colour) in zip(places, rows, strict=True):
        text = f"{ratio:.2g}x" if ratio < 100 else f"{ratio:.0f}x"
        right = ratio >= 1
        axis.text(
            ratio * (1.08 if right else 0.93),
            place,
            text,
            va="center",
            ha="left" if right else "right",
            fontsize=7,
            color=OURS if colour == OURS else "black",
        )
    axis.axvline(1, color=OURS, linewidth=1)
    axis.set_title(title, fontsize=8, loc="right")
    axis.tick_params(axis="y", length=0)
    axis.tick_params(axis="x", labelsize=7)
    axis.minorticks_off()
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)
