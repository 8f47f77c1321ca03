"""Texts in which the source of a code object may stand: files, cells, prompts, bodies of magics.

Nothing here is trusted: ``code_sources.py`` compiles each text again and compares. Imports nothing
of IPython; asks the shell that is loaded, if there is one. Entered by any thread that pickles.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # importing typing costs 6 ms of a start
if TYPE_CHECKING:
    from types import CodeType
    from typing import Any, Dict, Iterator, List, Optional

#: How many cells of a notebook's history are compiled in search of one function, newest first.
CELLS = 100
#: Names under which IPython compiles what its magics run; ``linecache`` does not know those texts.
_OF_MAGICS = ("<timed exec>", "<timed eval>", "<magic-timeit>", "<string>")
#: Parts of the names of cells; a program may have cleared ``linecache``.
_OF_CELLS = ("<ipython-input-", "ipykernel_")


def known(code: CodeType, space: Optional[Dict[str, Any]]) -> Iterator[str]:
    """Yield what ``linecache`` knows of the file of a code object.

    As it was read, and as it is now.

    Args:
        code: the code object.
        space: globals of its function, if known: a loader there may have the source.
    """
    import linecache

    seen: List[str] = []
    for step in ("as it was read", "as it is now", "as it was typed"):
        if step == "as it is now":
            linecache.checkcache(code.co_filename)
        if step == "as it was typed":  # prompts and python -c, since Python 3.13.1
            ask = getattr(linecache, "_getlines_from_code", None)
            text = "".join(ask(code)) if ask is not None else ""
        else:
            text = "".join(linecache.getlines(code.co_filename, space))
        if text and text not in seen:
            seen.append(text)
            yield text


def of_ipython(code: CodeType) -> Iterator[str]:
    """Yield the cells of a running IPython that may hold a code object, and what their magics ran.

    ``%%time``, ``%timeit`` and their like compile their text under a name of their own.
    """
    if code.co_filename not in _OF_MAGICS and not any(p in code.co_filename for p in _OF_CELLS):
        return
    module = sys.modules.get("IPython")
    shell: Any = module.get_ipython() if module is not None else None
    history = getattr(getattr(shell, "history_manager", None), "input_hist_parsed", None)
    word = "lambda" if code.co_name == "<lambda>" else code.co_name
    cells = [cell for cell in list(history or ()) if isinstance(cell, str) and word in cell]
    for cell in reversed(cells[-CELLS:]):
        for text in _texts_in(shell, cell):
            if word in text:
                yield text


def _texts_in(shell: Any, cell: str) -> Iterator[str]:
    """Yield a transformed cell, and the texts that it gives to magics."""
    import ast

    yield cell
    try:
        tree = ast.parse(cell)
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        magic = _magic(node)
        if magic is None:
            continue
        name, *given = magic
        if name == "run_line_magic":
            given = [_without_options(given[0])]
        else:
            given = [given[-1], "%s\n%s" % (_without_options(given[0]), given[-1])]
        for text in given:
            try:
                transformed = shell.transform_cell(text)
            except SyntaxError:
                continue  # a text for another language
            for each in _texts_in(shell, transformed):
                yield each


def _magic(node: Any) -> Optional[List[str]]:
    """Return [method, line, cell] of a ``get_ipython().run_cell_magic("time", line, cell)``."""
    import ast

    function = getattr(node, "func", None)
    if not isinstance(node, ast.Call) or not isinstance(function, ast.Attribute):
        return None
    if function.attr not in ("run_cell_magic", "run_line_magic") or len(node.args) < 2:
        return None
    given = [getattr(each, "value", None) for each in node.args[1:3]]
    texts = [each for each in given if isinstance(each, str)]
    wanted = 2 if function.attr == "run_cell_magic" else 1
    return [function.attr] + texts if len(texts) == len(given) >= wanted else None


def _without_options(line: str) -> str:
    """Return the statement behind options such as ``-n 10 -r3 -o --no-raise-error``."""
    words = line.lstrip().split(" ")
    while words and (not words[0] or words[0].startswith("-")):
        # A lone letter that wants a value has it in the next word.
        value = len(words) > 1 and len(words[0]) == 2 and words[1].isdigit()
        words = words[2 if value else 1 :]
    return " ".join(words)
