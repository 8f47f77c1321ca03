"""Callables that are made anew for each call, of a function that this worker knows.

The host names the function by the number of its definition; the payload begins with *steps*: kinds
and values in turn, from the function to what is called. Called by the runner, as a part of the
call.
"""

from __future__ import annotations

import functools
from sys import intern

TYPE_CHECKING = False  # importing typing costs 6 ms of a start
if TYPE_CHECKING:
    from typing import Any, Tuple

#: Kinds of steps, and their values: what a function closes over, and its defaults, as far as they
#: differ from those of the known function (values, bit mask of their places); the object that a
#: method is bound to; (arguments, keywords) of a ``functools.partial``; values of globals that the
#: host may have bound anew (name of the namespace, names, values); instances of classes by value.
#: Of each of those: its place, which is 0 for the object of the ``METHOD`` that follows and n for
#: the nth argument; number, piece and name of its class, for ``objects.defined``; its attributes.
#: The last is as ``CLOSURE``, with short containers of scalars among the values, each of which is
#: one object here however many calls bring it (mask, values, containers). Of each of those: its
#: place among the values, its kind for ``objects.begin``, and what ``objects.finish`` gets.
CLOSURE, METHOD, PARTIAL, GLOBALS, OBJECTS, NUMBERED = range(6)


class _Any:
    def method(self) -> None:
        """Exist, so that the types of functions, methods and cells can be taken."""
        return __class__  # type: ignore[name-defined, no-any-return]


_method: Any = type(_Any().method)
_function: Any = type(_Any.method)


_new: Any = object.__new__
_cell: Any = type(_Any.method.__closure__[0])  # type: ignore[index]
_objects: Any = None


def _load_objects() -> Any:
    """Return ``objects``, imported for the first call that brings any.

    An import within a function takes as long as to make a short container.
    """
    global _objects  # a cache
    from . import objects

    _objects = objects
    return objects


def make(function: Any, payload: Tuple[Any, Any, Any], where: Any) -> Tuple[Any, Any, Any, Any]:
    """Return (callable that the steps lead to, arguments, keywords, position of ``task``).

    Args:
        function: the known one.
        payload: (steps, arguments, keywords).
        where: the position of the function's own parameter ``task``, None if it is not to be
            filled: then that of the callable is not either.
    """
    steps, args, kwargs = payload
    if where is None and len(steps) == 2:  # most calls
        kind, value = steps
        if kind == METHOD:
            return _method(function, value), args, kwargs, None
        if kind == CLOSURE:
            return _fill(function, *value), args, kwargs, None
        if kind == OBJECTS:
            return function, _with_objects(value, args)[1:], kwargs, None
        if kind == PARTIAL:
            return functools.partial(function, *value[0], **value[1]), args, kwargs, None
    position = 0
    owner = None
    while position < len(steps):
        kind, value = steps[position : position + 2]
        position += 2
        if kind == CLOSURE:
            function = _fill(function, *value)
        elif kind == NUMBERED:
            function = _fill(function, _with_containers(*value[1:]), value[0])
        elif kind == METHOD:
            function = _method(function, value if owner is None else owner)
        elif kind == OBJECTS:
            owner, *rest = _with_objects(value, args)
            args = tuple(rest)
        elif kind == GLOBALS:
            from .namespaces import bind

            bind(function, *value)
        else:
            function = functools.partial(function, *value[0], **value[1])
    if where is not None:
        from .injection import position_of_task

        where = position_of_task(function)
    return function, args, kwargs, where


def _with_objects(found: Tuple[Any, ...], args: Tuple[Any, ...]) -> Tuple[Any, ...]:
    """Return the object of a method, or None, and the arguments, with instances in their places.

    What is made is what ``pickle`` would make: a class has no say in it, as the host has seen.
    """
    defined = (_objects or _load_objects()).defined
    values: Any = [None]
    values += args
    for place, number, piece, name, attributes in found:
        made: Any = _new(defined(number, piece, name))
        space = made.__dict__
        for key, value in attributes.items():
            space[intern(key)] = value
        values[place] = made
    return tuple(values)


def _with_containers(values: Tuple[Any, ...], found: Tuple[Any, ...]) -> Tuple[Any, ...]:
    """Return the values with the containers in their places."""
    ours = _objects or _load_objects()
    filled = list(values)
    for place, kind, *state in found:
        filled[place] = container = ours.begin(state[0], kind)
        ours.finish(container, state)
    return tuple(filled)


def _fill(function: Any, values: Tuple[Any, ...], mask: int) -> Any:
    """Return a function like the known one, with other values."""
    closure, defaults = function.__closure__ or (), function.__defaults__ or ()
    if len(values) == len(closure) and mask + 1 == 1 << len(closure):
        closure = tuple(map(_cell, values))
    else:
        given = iter(values)
        places = [1 << number for number in range(len(closure) + len(defaults))]
        closure = tuple(
            [_cell(next(given)) if mask & place else cell for place, cell in zip(places, closure)]
        )
        defaults = tuple(
            [
                next(given) if mask & place else value
                for place, value in zip(places[len(closure) :], defaults)
            ]
        )
    made = _function(
        function.__code__,
        function.__globals__,
        function.__name__,
        defaults or None,
        closure or None,
    )
    made.__qualname__ = function.__qualname__
    made.__module__ = function.__module__
    made.__doc__ = function.__doc__
    if function.__annotations__:
        made.__annotations__ = dict(function.__annotations__)
    return made
