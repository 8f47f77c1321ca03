"""The figures of a JSON file as a picture: one panel per case, one bar per system, as multiples of ours on a logarithmic scale.

Needs matplotlib (the extra ``benchmarks``), which is imported here and nowhere else.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

#: The cases of the picture, if they were measured.
PANELS = ("roundtrip-pinned", "no-ops", "map", "map-10k", "head-of-line", "makespan", "asyncio-executor", "start", "killed")

OURS, PEER, FLOOR = "#0b7a75", "#b8bcc4", "#e3b23c"


def draw(results: Mapping[str, Any], path: str) -> None:
    """Write the picture; the ending of ``path`` decides its format."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    # Text stays text, and the file is the same for the same figures.
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "benchmarks", "font.size": 8, "font.family": "sans-serif"})
    panels = [(name, rows) for name in PANELS if (rows := _rows(results["cases"].get(name)))]
    if not panels:
        raise ValueError("none of the cases of the picture was measured: " + ", ".join(PANELS))
    columns = min(3, len(panels))
    lines = -(-len(panels) // columns)
    tallest = max(len(rows) for _name, rows in panels)
    figure, axes = plt.subplots(lines, columns, figsize=(4.6 * columns, (0.19 * tallest + 0.7) * lines), squeeze=False, layout="constrained")
    for axis, (name, rows) in zip(axes.flat, panels, strict=False):
        _panel(axis, results["cases"][name]["title"], rows)
    for axis in list(axes.flat)[len(panels) :]:
        axis.set_axis_off()
    where = results["machine"]
    figure.suptitle(
        f"Time as a multiple of CondaEnvExecutor's (shorter is better). Medians of interleaved runs in one session; Python {where['python']}, "
        f"{where['system']}, {where['cores']} cores",
        fontsize=9,
    )
    figure.savefig(path, dpi=100, metadata={"Date": None} if path.endswith(".svg") else None)
    plt.close(figure)


def _rows(case: Mapping[str, Any] | None) -> list[tuple[str, float, str]]:
    """Return (title, ratio to ours, colour), the fastest last, for it is drawn on top."""
    if case is None:
        return []
    figure = next(iter(case["figures"]))
    medians = {name: statistics.median(entry["figures"][figure]) for name, entry in case["systems"].items() if entry["figures"].get(figure)}
    base = medians.get("ours")
    if not base:
        return []
    colours = {"ours": OURS, "pipe": FLOOR, "ideal": FLOOR, "threads": FLOOR}
    rows = [(case["systems"][name]["title"], value / base, colours.get(name, PEER)) for name, value in medians.items()]
    return sorted(rows, key=lambda row: -row[1])


def _panel(axis: Any, title: str, rows: list[tuple[str, float, str]]) -> None:
    left = min(0.5, min(ratio for _title, ratio, _colour in rows) / 1.5)
    right = max(2.0, rows[0][1] * 4)
    axis.barh(range(len(rows)), [ratio - left for _title, ratio, _colour in rows], left=left, color=[colour for *_rest, colour in rows], height=0.7)
    axis.set_xscale("log")
    axis.set_xlim(left, right)
    axis.set_yticks(range(len(rows)), [title for title, *_rest in rows])
    for position, (_title, ratio, _colour) in enumerate(rows):
        axis.text(ratio * 1.06, position, f"{ratio:.2g}x" if ratio < 100 else f"{ratio:.0f}x", va="center", fontsize=7)
    axis.axvline(1, color=OURS, linewidth=0.8)
    axis.set_title(title, fontsize=8, loc="left")
    axis.tick_params(axis="y", length=0)
    axis.tick_params(axis="x", labelsize=7)
    axis.minorticks_off()
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)
