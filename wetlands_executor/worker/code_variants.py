"""The ways in which a statement may have been compiled, for a comparison with the code that runs.

From Python 3.11 on, the compiler writes ``os.getpid()`` in two ways: as the call of an attribute if
the module or cell that it compiles imports ``os`` at its top level, else as the call of a method.
Both do the same. Which statements were compiled together differs: a whole file, one statement alone
(IPython, prompts, doctest), the lines between two marks (Spyder), the body of a magic (``%%time``).

So the names that the running code treats as imported are read from it. If the statement, compiled
together with imports of just those names, gives the very same code, then it is its source.
"""

from __future__ import annotations

import sys

from . import code_portable

TYPE_CHECKING = False  # importing typing costs 6 ms of a start
if TYPE_CHECKING:
    from types import CodeType
    from typing import Any, Iterator, List, Set


def codes_of(text: str, filename: str, features: Any, code: CodeType) -> Iterator[List[CodeType]]:
    """Yield the code objects of a statement, once for each way in which it may have been compiled.

    Args:
        text: the statement, in its place in the file by empty lines before it.
        filename: of the code.
        features: names of the ``__future__`` features that were on.
        code: what runs, and stands in the statement.

    Raises:
        SyntaxError, ValueError: it is not valid in such a way.
    """
    flags = code_portable.flags_of(features) | code_portable.TOP_LEVEL_AWAIT
    names = sorted(imported(code))
    for nested in (False, True):
        tree = code_portable.compile_quietly(text, filename, flags | code_portable.ONLY_AST)
        head = _parsed("import %s" % ", ".join(names), flags) if names else []
        # Of several statements that share lines, each was compiled alone, or all were.
        body = [node for node in tree.body if type(node).__name__ not in ("Import", "ImportFrom")]
        if not nested:
            tree.body = head + body
            yield list(code_portable.walk(code_portable.compile_quietly(tree, filename, flags)))
        elif code.co_flags & 0x10:  # inspect.CO_NESTED: in a function that is not part of the text
            (function,) = _parsed("def inner(): pass", flags)
            function.body = body
            tree.body = head + [function]
            (inner,) = (
                each
                for each in code_portable.compile_quietly(tree, filename, flags).co_consts
                if isinstance(each, type(code))
            )
            yield list(code_portable.walk(inner))


def imported(code: CodeType) -> Set[str]:
    """Return the names of which this code calls attributes as if they were imported ones.

    What is returned is a guess that the comparison of the compiled code confirms.
    """
    plain: Set[str] = set()
    methods: Set[str] = set()
    for each in [code] + list(code_portable.walk(code)):
        _collect(each, plain, methods)
    return {name for name in plain - methods if name.isidentifier()}


def _collect(code: CodeType, plain: Set[str], methods: Set[str]) -> None:
    import dis

    name: Any = None
    for instruction in dis.get_instructions(code):
        operation = instruction.opname
        if operation == "EXTENDED_ARG":
            continue
        if operation == "LOAD_METHOD" and name is not None:  # until Python 3.11
            methods.add(name)
        elif operation == "LOAD_ATTR" and name is not None:
            # Not asked of ``dis.opmap``: Python 3.12 lists LOAD_METHOD there, and never writes it.
            by_method = sys.version_info >= (3, 12) and (instruction.arg or 0) & 1
            (methods if by_method else plain).add(name)
        name = None
        if operation.startswith("LOAD_") and operation not in ("LOAD_CONST", "LOAD_ATTR"):
            found = instruction.argval
            # One instruction may load two names; the second of them is what the attribute is of.
            name = found[-1] if isinstance(found, tuple) else found
            name = name if isinstance(name, str) else None


def _parsed(text: str, flags: int) -> List[Any]:
    tree = code_portable.compile_quietly(text, "<unknown>", flags | code_portable.ONLY_AST)
    return list(tree.body)
