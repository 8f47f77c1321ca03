"""The pictures of "Progress bars", by rich's recorder: ``python docs/progress_pictures.py``.

What is drawn is what a terminal would get of these tasks and counts.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from rich.console import Console

from wetlands_executor import RunningTask
from wetlands_executor.observe.bars import BarState, Counts
from wetlands_executor.observe.terminal import Drawing

IMAGES = Path(__file__).parent / "images"

SAID = ("segment[1203]: 412 cells", "WARNING cells: plate_07/B04.tif is underexposed")
TASKS = (
    ("segment[1207]", 0, 14.2, "slice 3 of 8", 3 / 8, 1, 412_000_000),
    ("segment[1208]", 1, 9.8, "slice 2 of 8", 2 / 8, 2, 398_000_000),
    ("segment[1209]", 2, 1.1, "reading", None, 1, 171_000_000),
)


class Known:
    """Memory of the workers of the picture."""

    def of(self, pid: int) -> int:
        return TASKS[pid - 1][-1]


def picture(width: int, *, colours: bool) -> str:
    """Return a terminal of this width, as SVG."""
    console: Any = Console(
        record=True, file=io.StringIO(), width=width, force_terminal=True, highlight=False,
        color_system="truecolor", no_color=not colours,
    )  # fmt: skip
    drawing = Drawing(io.TextIOWrapper(io.BytesIO(), encoding="utf-8"), console)
    drawing._memory = Known()
    running = tuple(
        RunningTask(
            str(number), name, worker, worker + 1, seconds, message, None, None, share, tries
        )
        for number, (name, worker, seconds, message, share, tries, _) in enumerate(TASKS)
    )
    state = BarState("cellpose", Counts(1206, 5000, 2, 0, 1), 98, 12.3, 308, running)
    for text in SAID:
        console.print(text)
    for line in drawing.lines([state], width - 1, 10):
        console.print(line if colours else line.plain, soft_wrap=True)
    text: str = console.export_svg(
        title="", font_aspect_ratio=0.61, unique_id=f"progress-{width}",
        code_format=_FORMAT,
    )  # fmt: skip
    return "\n".join(line.rstrip() for line in text.splitlines()) + "\n"


#: As rich's own, without a window's frame and without a font of the web.
_FORMAT = """<svg class="rich-terminal" viewBox="0 0 {terminal_width} {terminal_height}"
     xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font-family: Menlo, Consolas, "DejaVu Sans Mono", monospace;
  font-size: {char_height}px; line-height: {line_height}px; }}
{styles}
</style>
<defs>
{lines}
</defs>
<rect width="100%" height="100%" rx="8" fill="#292929"/>
<g transform="translate(9, 9)">
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


def pictures() -> dict[Path, str]:
    """Return the content of each file."""
    return {
        IMAGES / "progress-80.svg": picture(80, colours=True),
        IMAGES / "progress-40.svg": picture(40, colours=False),
    }


if __name__ == "__main__":
    for path, text in pictures().items():
        path.write_text(text, encoding="utf-8")
