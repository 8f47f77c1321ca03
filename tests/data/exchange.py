"""The host's side of an exchange.

``python -m tests.data.exchange MODULE WORKER_PYTHON [NAME ...]`` prints one JSON object.

Runs in any environment that has cloudpickle, psutil and typing_extensions, with this project on
PYTHONPATH. ``MODULE`` holds the cases and must be importable on both sides. The object: case ->
{"there": ..., "back": ..., "made there": ...}; each is "ok", "absent" (this side has no such value)
or what went wrong.
"""

from __future__ import annotations

import importlib
import json
import sys
import warnings
from typing import Any

from wetlands_executor import CondaEnvExecutor

#: Seconds that one exchange may take.
DEADLINE = 60


def _compare(here: Any, there: Any) -> str:
    here, there = json.loads(json.dumps(here)), json.loads(json.dumps(there))
    return "ok" if here == there else f"differs: {str(here)[:300]} became {str(there)[:300]}"


def _failure(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def exchange(executor: CondaEnvExecutor, cases: Any, name: str) -> dict[str, str]:
    """Send one value there, get it back, and get one that was made there."""
    found: dict[str, str] = {}
    try:
        value = cases.make(name)
    except (AttributeError, ImportError):
        found["there"] = found["back"] = "absent"
    else:
        here = cases.expected(value)
        try:
            there, then, back = executor.submit(cases.take, value).result(DEADLINE)
            found["there"] = _compare(here, there)
            found["back"] = _compare(then, cases.describe(back))
        except BaseException as error:
            found["there"] = found["back"] = _failure(error)
    try:
        there, value = executor.submit(cases.give, name).result(DEADLINE)
        found["made there"] = _compare(there, cases.describe(value))
    except BaseException as error:
        found["made there"] = _failure(error)
    return found


def failures(executor: CondaEnvExecutor, cases: Any, name: str) -> dict[str, str]:
    """Let one exception be raised there."""
    wanted = cases.RAISES[name][1]
    try:
        cases.RAISES[name][0]()
        return {"made there": "nothing was raised here"}
    except BaseException as error:
        here = error
    try:
        executor.submit(cases.fail, name).result(DEADLINE)
        return {"made there": "nothing was raised"}
    except BaseException as error:
        if type(here).__qualname__ != wanted:
            return {"made there": f"here it is a {type(here).__qualname__}"}
        if type(error) is not type(here):
            return {"made there": f"{type(error).__module__}.{type(error).__name__}: {error}"}
        return {"made there": _compare(str(here), str(error))}


def main(module: str, python: str, *names: str) -> None:
    """Exchange all cases, or those that are named."""
    cases = importlib.import_module(module)
    with warnings.catch_warnings(record=True) as caught, CondaEnvExecutor(
        python, max_workers=1
    ) as executor:
        warnings.simplefilter("always")
        found = {
            name: exchange(executor, cases, name)
            for name in names or cases.CASES
            if name in cases.CASES
        }
        found.update(
            {
                name: failures(executor, cases, name)
                for name in names or cases.RAISES
                if name in cases.RAISES
            }
        )
        found["versions"] = {
            "host": cases.version(),
            "worker": executor.submit(cases.version).result(DEADLINE),
        }
    found["warnings"] = {"host": "\n".join(sorted({str(each.message) for each in caught}))}
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
