"""``wetlands-executor envs``: the environments that can be found by name."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from pathlib import Path

HELP = "list the environments that can be found: name, kind, Python, size, path"
DESCRIPTION = (
    "Lists conda environments, and those that this program has made. Only files are read; no\n"
    "package manager is started. A virtual environment is given to other commands by its path."
)
EPILOG = """\
examples:
  wetlands-executor envs
  wetlands-executor envs --json | jq -r '.[] | select(.python == "3.11.9") | .path'

exit codes: 0 always, 2 wrong arguments"""
UNITS: Final = ("B", "KB", "MB", "GB", "TB")


def describe(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument(
        "--json", action="store_true", help="print a JSON list of objects; sizes are bytes"
    )
    parser.add_argument(
        "--no-size",
        action="store_true",
        help="do not add up the sizes, which takes most of the time",
    )


def run(arguments: argparse.Namespace) -> int:
    """List the environments; return the exit code."""
    from wetlands_executor import Environment

    rows = [
        {
            "name": each.name,
            "kind": each.kind,
            "python": python_version(each.prefix),
            "size": None if arguments.no_size else size_of(each.prefix),
            "path": str(each.prefix),
        }
        for each in Environment.list()
    ]
    if arguments.json:
        import json

        json.dump(rows, sys.stdout, indent=2)
        sys.stdout.write("\n")
    elif rows:
        sys.stdout.write("\n".join(_table(rows)) + "\n")
    else:
        sys.stderr.write("no environments were found; make one with wetlands-executor create\n")
    return 0


def _table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    cells = [("NAME", "KIND", "PYTHON", "SIZE", "PATH")]
    for row in rows:
        size = "-" if row["size"] is None else in_units(row["size"])
        cells.append((row["name"] or "-", row["kind"], row["python"] or "-", size, row["path"]))
    widths = [max(len(line[column]) for line in cells) for column in range(4)]
    import shutil

    room = shutil.get_terminal_size().columns if sys.stdout.isatty() else 0
    lines = []
    for line in cells:
        start = "  ".join(
            text.rjust(width) if column == 3 else text.ljust(width)
            for column, (text, width) in enumerate(zip(line, widths, strict=False))
        )
        # on a narrow terminal the path gets a line of its own
        narrow = 0 < room < len(start) + 2 + len(line[4])
        lines.append(start.rstrip() + (f"\n  {line[4]}" if narrow else f"  {line[4]}"))
    return lines


def python_version(prefix: Path) -> str | None:
    """Return the version of the Python at a prefix, as its files say it; None if they do not."""
    import json
    import re

    try:
        for file in (prefix / "conda-meta").glob("python-[0-9]*.json"):
            return str(json.loads(file.read_text(encoding="utf-8"))["version"])
        for line in (prefix / "pyvenv.cfg").read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition("=")
            if key.strip() in ("version", "version_info"):
                numbers = re.match(r"\d+\.\d+(\.\d+)?", value.strip())
                return numbers[0] if numbers else None
    except (OSError, ValueError, KeyError):
        pass  # a file that cannot be read says nothing; the folder may
    for folder in sorted(prefix.glob("lib/python[0-9]*")):
        return folder.name.removeprefix("python")
    return None


def size_of(prefix: Path) -> int:
    """Return how many bytes the files of a folder take on the disk, each file once."""
    seen: set[tuple[int, int]] = set()
    total = 0
    for place, _, names in os.walk(prefix):
        for name in names:
            try:
                status = os.lstat(os.path.join(place, name))
            except OSError:
                continue  # removed since it was listed
            if (status.st_dev, status.st_ino) not in seen:
                seen.add((status.st_dev, status.st_ino))
                total += getattr(status, "st_blocks", 0) * 512 or status.st_size
    return total


def in_units(size: float) -> str:
    """Write a number of bytes for people: ``"1.3 GB"``."""
    power = 0
    while size >= 999.5 and power < len(UNITS) - 1:
        size /= 1000
        power += 1
    unit = UNITS[power]
    return f"{size:.0f} {unit}" if size >= 99.5 or unit == "B" else f"{size:.1f} {unit}"
