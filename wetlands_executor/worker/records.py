"""Log records of the worker on their way to the host.

The host handles them under the name of their own logger.

``logging`` costs 8 ms of a start and most tasks do not use it: nothing is done before its import.
Levels are the host's: those of its loggers that have one travel with the project folders (see
``imports``), so a record that no logger of the host would handle is not made.
"""

from __future__ import annotations

import sys

from . import patches, wire

TYPE_CHECKING = False  # importing typing costs 6 ms of a start
if TYPE_CHECKING:
    from typing import Any, Dict, Optional

    from .running import Running

_levels: Dict[str, int] = {}
#: The module ``logging`` that has our handler.
_ready: Any = None
_PLAIN = frozenset((str, int, float, bool, type(None)))
_SKIPPED = frozenset(("msg", "args", "exc_info", "exc_text", "stack_info", "message"))


def use_levels(levels: Dict[str, int]) -> None:
    """Take over the levels of the host's loggers; "" is the root."""
    previous = dict(_levels)
    _levels.clear()
    _levels.update(levels)
    logging = sys.modules.get("logging")
    if logging is not None and logging is _ready:
        for name in previous:
            if name not in levels:
                logging.getLogger(name or None).setLevel(
                    logging.NOTSET if name else logging.WARNING
                )
        _apply(logging)


def _apply(logging: Any) -> None:
    for name, level in _levels.items():
        logging.getLogger(name or None).setLevel(level)


def install(runner: Running) -> None:
    """Send log records to the host from now on. Once per process."""
    patches.after_import("logging", lambda logging: _add_handler(logging, runner))


def _add_handler(logging: Any, runner: Running) -> None:
    """Put our handler on the root logger."""
    from .threads import item_here

    class HostHandler(logging.Handler):  # type: ignore[misc]
        """Sends records to the host."""

        def emit(self, record: Any) -> None:
            try:
                runner.channel.send(wire.LOG, item_here(runner), _pack(logging, record))
            except OSError:
                pass  # the host is gone; this process is about to be

    logging.getLogger().addHandler(HostHandler())
    global _ready  # a fact about this process
    _ready = logging
    _apply(logging)


_formatter: Optional[Any] = None


def _pack(logging: Any, record: Any) -> bytes:
    """Return the record as exact builtin types, which any host can read.

    The message is formatted here, where its arguments are.
    """
    from .calls import dumps, repr_of, text_of

    global _formatter
    if _formatter is None:
        _formatter = logging.Formatter()
    try:
        message = text_of(record.getMessage())
    except Exception as error:  # noqa: BLE001
        # the arguments do not fit the format: logging would print that and go on
        message = "%s %s (could not be formatted: %s)" % (
            text_of(record.msg),
            repr_of(record.args),
            text_of(error),
        )
    fields: Dict[str, Any] = {}
    for key, value in record.__dict__.items():
        if key not in _SKIPPED:
            fields[key if type(key) is str else text_of(key)] = (
                value if type(value) in _PLAIN else _as_plain(value)
            )
    fields["msg"] = message
    fields["args"] = None
    try:
        if record.exc_info:
            fields["exc_text"] = _formatter.formatException(record.exc_info)
        elif record.exc_text:
            fields["exc_text"] = text_of(record.exc_text)
    except Exception as error:  # noqa: BLE001
        # __str__ and __repr__ of an exception are the user's code
        fields["exc_text"] = "(the traceback could not be formatted: %s)" % type(error).__name__
    if record.stack_info:
        fields["stack_info"] = text_of(record.stack_info)
    return dumps(fields, 4)


def _as_plain(value: Any) -> Any:
    """Return a value of a record as a builtin type.

    Numbers and text as what they derive from (numpy.float64 is a float), the rest as its repr.
    """
    from .calls import repr_of

    try:
        if isinstance(value, str):
            return str.__str__(value)
        if isinstance(value, int):
            return int.__int__(value)
        if isinstance(value, float):
            return float.__float__(value)
        if type(value).__module__ == "numpy":  # its other scalars derive from none of them
            found = value.item()
            if type(found) in _PLAIN:
                return found
    except Exception:  # noqa: BLE001 - a class may hide what it is, and an array has many items
        pass
    return repr_of(value)
