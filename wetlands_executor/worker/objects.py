"""Objects of the host's namespaces that exist once in this worker, however many streams name them.

Each object that a function by value reaches (a global, what a closure holds, what those hold in
turn) has a number, which the host gives it for as long as it lives there. A stream names such an
object by a reduction that begins with its number: the first one makes the object, each later one
finds it. Its content follows with a version, and is set only if the version is new here. So what
the host has changed is changed here, within the same object; what it has not changed keeps what
tasks have made of it.

A large object's content travels once, as a *piece* (a record of its own), which is read when a
stream refers to it.

All functions are called by pickle streams, on the thread that loads them. ``forget`` is called by
the runner when the host drops objects.
"""

from __future__ import annotations

from . import running

TYPE_CHECKING = False  # importing typing costs 6 ms of a start
if TYPE_CHECKING:
    from typing import Any, Callable, Dict, Iterable, Tuple

#: number -> the object
TABLE: Dict[int, Any] = {}
#: number -> version of the content that was set last
VERSIONS: Dict[int, int] = {}
#: number of a piece -> its bytes, until they are read
PIECES: Dict[int, bytes] = {}
#: number of an object -> number of the piece that it was read from
READ: Dict[int, int] = {}
#: number of a function -> names of the attributes that the host has set last
ATTRIBUTES: Dict[int, Iterable[str]] = {}

#: Builtin types by their place; the host names them by it.
LIST, DICT, SET, BYTEARRAY, OBJECT, CELL = range(6)


def _empty_cell() -> Any:
    value: Any = None
    cell: Any = (lambda: value).__closure__[0]  # type: ignore[index]
    del cell.cell_contents
    return cell


_MAKERS: Tuple[Callable[[], Any], ...] = (list, dict, set, bytearray, object, _empty_cell)


def set_version(number: int, version: int) -> None:
    """Note which content an object has now."""
    old = VERSIONS.get(number)
    VERSIONS[number] = version
    if old is not None:
        note_change()


def note_change(kept: Any = None) -> None:
    """Note that the host has changed an object of this worker.

    Functions that were read before are read again when they are called.

    Else a call that was pickled before the change, and is made after it, would leave its content to
    calls that were pickled after the change.

    Args:
        kept: the function whose call has brought the change, and brings its own each time.
    """
    runner = running.main_loop
    if runner is not None:
        runner.drop_stale(kept)


def load(data: bytes) -> Any:
    """Return what a stream within the stream holds: a function or class by value."""
    from .calls import loads_rich

    return loads_rich(data)


def begin(number: int, kind: int) -> Any:
    """Return the object of that number, new and empty if there is none."""
    found = TABLE.get(number)
    if found is None:
        found = TABLE[number] = _MAKERS[kind]()
        if kind == OBJECT:
            _note_sentinel(number, found)
    return found


def finish(target: Any, state: Tuple[Any, ...]) -> None:
    """Set the content of a builtin container: (number, version, element, element, ...)."""
    number, version = state[:2]
    if VERSIONS.get(number) == version:
        return
    kind = type(target)
    content = state[2:]
    if kind is list:
        target[:] = content
    elif kind is bytearray:
        target[:] = content[0]
    elif kind is dict:
        target.clear()
        steps = iter(content)
        target.update(zip(steps, steps))
    elif kind is set:
        target.clear()
        target.update(content)
    elif content:
        target.cell_contents = content[0]
    else:
        try:
            del target.cell_contents
        except ValueError:
            pass  # it is empty already
    set_version(number, version)


_CONSTANTS: Dict[str, Callable[[Any], Any]] = {
    "tuple": tuple,
    "frozenset": frozenset,
    "float": float,
}


def constant(number: int, kind: str, content: Any) -> Any:
    """Return the object of that number, which cannot be changed.

    A tuple, a frozenset, a float that is not a number.
    """
    found = TABLE.get(number)
    if found is None:
        found = TABLE[number] = _CONSTANTS[kind](content)
    return found


def make(number: int, function: Callable[..., Any], args: Tuple[Any, ...]) -> Any:
    """Return the object of that number, made by a call if there is none."""
    found = TABLE.get(number)
    if found is None:
        found = function(*args)
        found = TABLE.setdefault(number, found)  # the call may have met the object itself
    return found


def set_state(target: Any, state: Tuple[Any, ...]) -> None:
    """Set the state of an instance: (number, version, counts, value, value, ...).

    ``counts`` says how many of the values there are of each kind, or -1: what ``__setstate__``
    gets; names and values in turn for ``__dict__``, and for slots; list items; keys and values of
    dict items.
    """
    number, version, counts = state[:3]
    if VERSIONS.get(number) == version:
        return
    again = number in VERSIONS
    groups = []
    first = 3
    for count in counts:
        groups.append(None if count < 0 else state[first : first + count])
        first += max(count, 0)
    other, attributes, slots, listitems, dictitems = groups
    if listitems is not None:
        if again:
            target.clear()
        target.extend(listitems)
    if dictitems is not None:
        if again:
            target.clear()
        steps = iter(dictitems)
        for key, value in zip(steps, steps):
            target[key] = value
    if other is not None:
        target.__setstate__(other[0])
    if again and other is None:
        _clear(target, () if slots is None else slots[::2])
    if attributes is not None:
        import sys

        space = target.__dict__
        steps = iter(attributes)
        for key, value in zip(steps, steps):
            space[sys.intern(key) if type(key) is str else key] = value
    if slots is not None:
        steps = iter(slots)
        for key, value in zip(steps, steps):
            object.__setattr__(target, key, value)
    set_version(number, version)


def _clear(target: Any, kept: Tuple[Any, ...]) -> None:
    """Delete the attributes of an instance, and its slots but for those that are set next."""
    space = getattr(target, "__dict__", None)
    if type(space) is dict:
        space.clear()
    import copyreg

    for name in copyreg._slotnames(type(target)):  # type: ignore[attr-defined]
        if name not in kept:
            try:
                object.__delattr__(target, name)
            except AttributeError:
                pass  # it is not set


def set_once(target: Any, state: Tuple[int, int, Callable[[Any, Any], None], Any]) -> None:
    """Set the state of a class: (number, version, what sets it, the state)."""
    number, version, setter, content = state
    if VERSIONS.get(number) == version:
        return
    TABLE[number] = target
    setter(target, content)
    set_version(number, version)


def whole(number: int, data: bytes) -> Any:
    """Return the object of that number, made from a pickle of its own if there is none."""
    found = TABLE.get(number)
    if found is None:
        found = TABLE.setdefault(number, load(data))
    return found


def large(number: int, piece: int) -> Any:
    """Return the object of that number, with the content of a piece that the host sends once."""
    if READ.get(number) == piece:
        return TABLE[number]
    data = PIECES.get(piece)
    if data is None:
        runner = running.main_loop
        assert runner is not None
        runner.read_piece(piece)
        data = PIECES[piece]
    found = load(data)
    TABLE[number] = found
    if number in READ:
        note_change()
    READ[number] = piece
    PIECES.pop(piece, None)
    return found


def defined(number: int, piece: int, _name: str) -> Any:
    """Return a function or class by value, which the host sends once.

    Its name tells the host what stands here, for messages.
    """
    return TABLE[number] if READ.get(number) == piece else large(number, piece)


def receive(piece: int, data: bytes) -> None:
    """Keep the content of a large object until a stream refers to it."""
    if piece not in READ.values():
        PIECES[piece] = data


def forget(numbers: Iterable[int]) -> None:
    """Drop the objects and pieces that the host has dropped."""
    tables: Tuple[Dict[int, Any], ...] = (TABLE, VERSIONS, PIECES, READ, ATTRIBUTES)
    for number in numbers:
        sentinel = id(TABLE.get(number))
        if _SENTINELS.get(sentinel) == number:
            del _SENTINELS[sentinel]
        for table in tables:
            table.pop(number, None)


# --- objects that each process has of its own


def lock() -> Any:
    """Return a new lock."""
    import threading

    return threading.Lock()


def rlock() -> Any:
    """Return a new re-entrant lock."""
    import threading

    return threading.RLock()


def synchronizer(name: str, args: Tuple[Any, ...]) -> Any:
    """Return a new Event, Condition, Semaphore, BoundedSemaphore or Barrier of ``threading``."""
    import threading

    return getattr(threading, name)(*args)


def queue(name: str, args: Tuple[Any, ...]) -> Any:
    """Return a new, empty queue of the module ``queue``."""
    import queue as queues

    return getattr(queues, name)(*args)


def local(cls: Any) -> Any:
    """Return a new ``threading.local``, or one of a class on top of it."""
    return cls()


def context_variable(name: str, default: Tuple[Any, ...]) -> Any:
    """Return a new context variable; ``default`` is empty or holds its default."""
    import contextvars

    return (
        contextvars.ContextVar(name, default=default[0])
        if default
        else contextvars.ContextVar(name)
    )


def weak_dictionary(name: str) -> Any:
    """Return a new, empty dictionary of ``weakref``."""
    import weakref

    return getattr(weakref, name)()


def named(number: int, names: Iterable[Tuple[str, str]]) -> Any:
    """Return a sentinel that belongs to a module, this process's own one.

    What the first of (module, name) that is here stands for.
    """
    found = TABLE.get(number)
    if found is not None:
        return found
    import sys

    from .imports import import_named

    failure: Any = None
    for module, name in sorted(names, key=lambda pair: pair[0] not in sys.modules):
        try:
            found = TABLE[number] = getattr(import_named(module), name)
        except (ImportError, AttributeError) as error:
            failure = failure or error
        else:
            _note_sentinel(number, found)
            return found
    raise failure


def sentinel(number: int, function: Callable[..., Any], args: Tuple[Any, ...]) -> Any:
    """Return the object of that number, which holds nothing, made by a call if there is none."""
    found = make(number, function, args)
    if VERSIONS.get(number):  # it had content before
        _clear(found, ())
        set_version(number, 0)
    _note_sentinel(number, found)
    return found


# --- sentinels on their way back

#: id -> number of the sentinels here. They stay as long as ``TABLE`` has them.
_SENTINELS: Dict[int, int] = {}
#: In the host: returns the object of a number, or None.
_find_in_host: Any = None


def use_host(find: Callable[[int], Any]) -> None:
    """Find the objects of this process, which is the host, when a task returns them."""
    global _find_in_host  # a fact about this process
    _find_in_host = find


def _note_sentinel(number: int, found: Any) -> None:
    from .calls import own_reducers

    _SENTINELS[id(found)] = number
    own_reducers[type(found)] = _reduce_sentinel


def _reduce_sentinel(obj: Any) -> Any:
    number = _SENTINELS.get(id(obj), 0)
    if TABLE.get(number) is not obj:
        _SENTINELS.pop(id(obj), None)
        return obj.__reduce_ex__(4)
    return returned, (number, type(obj))


def returned(number: int, cls: Any) -> Any:
    """Return the host's own object of that number; a new one if it is gone. Called in the host."""
    found = _find_in_host(number) if _find_in_host is not None else None
    return object.__new__(cls) if found is None else found
