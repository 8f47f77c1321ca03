"""The page that lists all commands, made from their parsers: ``python -m tests.cli.reference``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from wetlands_executor.cli.commands import COMMANDS, PROGRAM, module_of, parser_of

PAGE = Path(__file__).resolve().parents[2] / "docs" / "command-line-reference.md"
HEAD = """\
# Command line reference

Made from the parsers by `python -m tests.cli.reference`. For a first look see
[From a shell](command-line.md).
"""


def page() -> str:
    """Return the text of the page."""
    return "\n".join([HEAD, *(section(name) for name in COMMANDS)])


def section(name: str) -> str:
    """Return what is said of one command."""
    module, parser = module_of(name), parser_of(name)
    usage = getattr(module, "USAGE", f"{PROGRAM} {name} {_words(parser)}".rstrip())
    text = module.DESCRIPTION.replace("\n", " ")
    rows = [_row(action) for action in parser._actions if action.dest != "help"]
    table = ["| argument | meaning |", "|---|---|", *rows, ""] if rows else []
    body = [f"## {name}", "", "```", usage, "```", "", text, "", *table]
    return "\n".join([*body, "```", module.EPILOG, "```", ""])


def _words(parser: argparse.ArgumentParser) -> str:
    found = ["[OPTIONS]"] if any(action.option_strings for action in parser._actions) else []
    for action in parser._actions:
        if not action.option_strings:
            found.append(
                f"{action.metavar} ..." if action.nargs in ("+", "*") else f"{action.metavar}"
            )
    return " ".join(found)


def _row(action: argparse.Action) -> str:
    names = [f"`{name}{_value(action)}`" for name in action.option_strings]
    text = (action.help or "").replace("%%", "%").replace("%(default)s", str(action.default))
    text = text.replace("%(default)g", f"{action.default:g}" if _is_number(action.default) else "")
    label = ", ".join(names) or f"`{action.metavar}`"
    return f"| {label} | {text} |".replace("<", "&lt;")


def _value(action: argparse.Action) -> str:
    if action.nargs == 0:
        return ""
    choices = "{" + ",".join(map(str, action.choices)) + "}" if action.choices else None
    return f" {action.metavar or choices or action.dest.upper()}"


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float))


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
