"""Globals of functions that travel by value.

One namespace per module of the host, shared by all functions that come from it.

A function that is pickled by value brings the globals that it uses. Rebuilt naively, each call
would get its own copy: what an initializer or an earlier call has set would be gone. Here every
function of one host module gets the same dictionary, and a global is written into it only if the
host has changed it since it was last sent to this worker (its token differs).
``ProcessPoolExecutor`` behaves the same, by importing the module once per process.

``share`` and ``restore`` are called by the pickle stream; the host names them when it reduces a
function.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # importing typing costs 6 ms of a start
if TYPE_CHECKING:
    from typing import Any, Dict, Tuple

#: namespace name -> its dictionary
SPACES: Dict[str, Dict[str, Any]] = {}
#: namespace name -> {global's name: token of the value that the host last sent}
TOKENS: Dict[str, Dict[str, Any]] = {}
#: The token of a global that the host does not have, or no longer has.
ABSENT = ("absent",)


def share(name: str, base: Dict[str, Any]) -> Dict[str, Any]:
    """Return the namespace of the host's module ``name``; it begins with the entries ``base``."""
    space = SPACES.get(name)
    if space is None:
        if name == "__main__":
            # Functions and classes of the host's script stay picklable by reference among processes
            # that a task starts.
            space = sys.modules["__main__"].__dict__
            base.pop("__file__", None)
        else:
            space = {"__builtins__": __builtins__}
        space.update(base)
        SPACES[name] = space
        TOKENS[name] = {}
    return space


def bind(function: Any, name: str, keys: Tuple[str, ...], values: Tuple[Any, ...]) -> None:
    """Bind globals that the host has changed since it was last told of them, for a call.

    The tokens are those of ``restore``.

    Args:
        function: is called next; its definition does not have to be read again.
        name: of the namespace.
        keys: names of globals.
        values: what they are bound to: numbers, booleans, None and texts in ASCII.
    """
    space, tokens = SPACES[name], TOKENS[name]
    changed = False
    for key, value in zip(keys, values):
        token = (type(value).__name__, repr(value))
        if tokens.get(key) != token or key not in space:
            tokens[key] = token
            space[key] = value
            changed = True
    if changed:
        from . import objects

        objects.note_change(function)


def restore(function: Any, state: Tuple[Any, ...]) -> None:
    """Set the state of a function that was just made, or found.

    What the host has changed of it, and of the globals that it uses.

    Args:
        function: what ``_make_function`` of cloudpickle made.
        state: (attributes, slots, namespace name or None, (its number, version, variables),
            (global's name, token, value, ...)); each of the variables that it closes over is (name,
            number of its cell, version, content), without content if it is not bound.
    """
    attributes, slots, name, (number, version, variables), entries = state
    from . import objects
    from .calls import cloudpickle_module

    if objects.VERSIONS.get(number) != version:
        slots["__globals__"] = {}
        for key in objects.ATTRIBUTES.pop(number, ()):
            if key not in attributes:
                function.__dict__.pop(key, None)  # deleted in the host
        if attributes:
            objects.ATTRIBUTES[number] = tuple(attributes)
        cloudpickle_module()._function_setstate(function, (attributes, slots))
        objects.set_version(number, version)
    # no strict before 3.10
    for cell, variable in zip(function.__closure__ or (), variables):
        objects.finish(cell, variable[1:])
    space = function.__globals__
    tokens = {} if name is None else TOKENS[name]
    steps = iter(entries)
    for key, token, value in zip(steps, steps, steps):
        if token == ABSENT:
            # Only what the host has sent is deleted: what a task has bound itself stays.
            old = tokens.get(key)
            tokens[key] = ABSENT
            if old is not None and old != ABSENT:
                space.pop(key, None)
                objects.note_change()
            continue
        if token is not None and tokens.get(key) == token and key in space:
            continue
        changed = key in tokens
        tokens[key] = token
        space[key] = value
        if changed and name is not None:
            objects.note_change()
    from .mainmodule import remember

    remember(function)
