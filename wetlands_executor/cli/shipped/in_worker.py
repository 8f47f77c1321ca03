"""The worker's half of ``call`` and ``map``: sent there by its content, not imported here.

It runs on Python 3.8 and newer with the standard library alone, beside the shipped sources of this
very version of the package, whose rules for functions (one module for each file, the parameter
``task``, coroutines) it uses.

Results become JSON here, where the packages are that made them: the program that has started the
command needs none of them.
"""

# mypy: disable-error-code="import-not-found"

from __future__ import annotations

import contextlib
import json
import time

TYPE_CHECKING = False  # importing typing costs 6 ms of a start
if TYPE_CHECKING:
    from typing import Any, Callable, Dict, Optional, Sequence, Tuple

#: The attribute of an exception that says when its call began and how long it took.
TIMES = "_wetlands_times"

_function: Callable[..., Any]
_task_position: Optional[Tuple[int, bool]] = None


def prepare(definition: Tuple[Any, ...], initializer: Optional[Tuple[Any, ...]]) -> None:
    """Run the user's initializer and find the function: what a worker does first.

    Args:
        definition: of the function, see ``Target.definition``.
        initializer: of a function without arguments, or None.
    """
    global _function, _task_position  # facts about this worker
    from _wetlands_worker import injection

    if initializer is not None:
        _find(initializer)()
    _function = _find(definition)
    _task_position = injection.position_of_task(_function)


def _find(definition: Tuple[Any, ...]) -> Any:
    """Return a function.

    Args:
        definition: ``("file", path, digest, source, name)`` or ``("reference", module, name,
            None)``.
    """
    from _wetlands_worker import imports

    return imports.resolve(definition)


def run(args: Sequence[Any], kwargs: Optional[Dict[str, Any]] = None) -> Tuple[float, float, str]:
    """Call the function.

    Args:
        args: positional arguments.
        kwargs: keyword arguments.

    Returns:
        When it began (``time.time()``), how long it took (seconds), and its result as JSON.
    """
    began, start = time.time(), time.perf_counter()
    try:
        text = as_json(_called(args, kwargs))
    except BaseException as error:
        # an exception of the user's class may take no attribute
        with contextlib.suppress(Exception):
            setattr(error, TIMES, (began, time.perf_counter() - start))
        raise
    return began, time.perf_counter() - start, text


def run_one(arg: Any) -> Tuple[float, float, str]:
    """Call the function with one argument; as ``run``, which most calls can do without."""
    return run((arg,))


def result(
    args: Sequence[Any], kwargs: Optional[Dict[str, Any]], form: str, output: Optional[str]
) -> str:
    """Call the function; return its result as text, or write it to a file.

    Args:
        args: positional arguments.
        kwargs: keyword arguments.
        form: ``"json"`` or ``"repr"``.
        output: path of the file, whose ending says how; None returns the text.
    """
    value = _called(args, kwargs)
    if output is not None and output.endswith(".npy"):
        import numpy as np

        # an open file: numpy adds an ending to a name
        with open(output, "wb") as stream:
            np.save(stream, np.asarray(value), allow_pickle=False)
        return ""
    text = repr(value) if form == "repr" else as_json(value)
    if output is None:
        return text
    with open(output, "w", encoding="utf-8") as stream:
        stream.write(text + "\n")
    return ""


def _called(args: Sequence[Any], kwargs: Optional[Dict[str, Any]]) -> Any:
    """Call the function as a task would be called: with its handle, and to the end if async."""
    from _wetlands_worker.coroutines import COROUTINE, run_coroutine

    if _task_position is not None:
        from _wetlands_worker import current_task, injection

        args, kwargs = injection.with_handle(
            _task_position, tuple(args), kwargs, current_task.current_task()
        )
    value = _function(*args, **(kwargs or {}))
    return run_coroutine(value) if type(value) is COROUTINE else value


def as_json(value: Any) -> str:
    """Return a result as JSON on one line; what JSON has no form for as its ``repr``.

    Arrays become lists, paths texts, sets lists, dates ISO 8601, data classes objects; numbers that
    are not finite become null, which is what JSON can say of them.
    """
    try:
        return json.dumps(value, default=_plain, ensure_ascii=False, allow_nan=False)
    except (ValueError, TypeError, RecursionError):
        pass
    try:
        text = json.dumps(value, default=_plain)
        return json.dumps(json.loads(text, parse_constant=_null), ensure_ascii=False)
    except (ValueError, TypeError, RecursionError):
        return json.dumps(repr(value), ensure_ascii=False)


def _null(_: str) -> None:
    return None


def _plain(value: Any) -> Any:
    """Return something nearer to JSON."""
    if callable(getattr(value, "tolist", None)):
        return value.tolist()  # an array, a scalar or a tensor
    if hasattr(value, "__fspath__"):
        path = value.__fspath__()
        return path if isinstance(path, str) else repr(value)
    if isinstance(value, (set, frozenset)):
        return list(value)
    fields = getattr(value, "__dataclass_fields__", None)
    if fields is not None and not isinstance(value, type):
        return {name: getattr(value, name) for name in fields}
    if callable(getattr(value, "isoformat", None)):
        return value.isoformat()
    return repr(value)
