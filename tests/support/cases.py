"""Many cases of one test, run as one test: for data, of which each costs less than a test does.

pytest spends about a millisecond on each test that it collects, prepares and reports.
"""

from __future__ import annotations

import functools
import inspect
import reprlib
import traceback
from collections.abc import Callable, Iterable
from typing import Any

import pytest

#: How much of a case a failure shows, in characters.
SHOWN = 120

_short = reprlib.Repr()
_short.maxstring = _short.maxother = SHOWN


def cases(
    names: str | tuple[str, ...], values: Iterable[Any]
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Run a test once for each of the values, all of them; it fails if any of them does.

    Takes what ``pytest.mark.parametrize`` takes. Fixtures are made once for all cases: a test
    that changes one has to be a test of its own for each.

    Args:
        names: of the test's arguments: one, or a tuple of them.
        values: one for each case; tuples if there are several names.
    """
    arguments = (names,) if isinstance(names, str) else names
    rows = [(value,) if isinstance(names, str) else value for value in values]
    assert rows, "no cases"
    assert all(len(row) == len(arguments) for row in rows), "a case has another number of values"

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(test)
        def run_all(**fixtures: Any) -> None:
            failed = []
            for row in rows:
                try:
                    test(**fixtures, **dict(zip(arguments, row)))
                except (Exception, pytest.fail.Exception):
                    shown = (f"{n} = {_short.repr(each)}" for n, each in zip(arguments, row))
                    failed.append(f"{', '.join(shown)}\n{traceback.format_exc()}")
            if failed:
                pytest.fail(
                    f"{len(failed)} of {len(rows)} cases failed:\n" + "\n".join(failed),
                    pytrace=False,
                )

        signature = inspect.signature(test)
        kept = [each for name, each in signature.parameters.items() if name not in arguments]
        assert len(kept) == len(signature.parameters) - len(arguments), "no such argument"
        run_all.__signature__ = signature.replace(parameters=kept)  # type: ignore[attr-defined]
        return run_all

    return decorate
