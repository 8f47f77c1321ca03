"""The calls that a running function submits, as bytes: ``send``.

What is large lies in blocks of shared memory that the host lends (``shm_lent.py``). Runs user code;
any thread of a task. Owns no state.
"""

from __future__ import annotations

from . import calls, injection, wire

TYPE_CHECKING = False  # importing typing costs 6 ms of a start
if TYPE_CHECKING:
    from typing import Any, Callable, List, Optional, Tuple

    from .calls import Pieces
    from .shm_lent import Lent

#: What pickle raises for what it cannot do.
_ERRORS = (calls.PicklingError, AttributeError, TypeError)


def send(
    value: Tuple[Any, ...],
    theirs: str,
    runner: Any,
    submit: Callable[[Any, str, List[bytes], Callable[[], object]], None],
) -> None:
    """Pickle a call and submit it.

    Args:
        value: (function, arguments, keywords), or the last two.
        theirs: version of the Python that reads it, if code has to travel as source; else "".
        runner: the worker's main loop.
        submit: sends the payload, a name if code travels in it or "", and the entries of blocks; it
            calls its last argument just before.
    """
    raws: Any = [] if runner.carries else None
    pieces, by_value = _pieces(value, theirs, raws)
    if not raws and (raws is None or pieces.size <= wire.CROSSOVER):
        submit(pieces.whole(), by_value, [], tuple)
        return
    from .shm_lent import Lent

    lent = Lent(runner.use_buffers(), runner.use_nested().borrow)
    try:
        blocks = _stored(pieces, raws, lent)
        if blocks is not None:
            payload = b"" if len(blocks) > len(raws) else pieces.whole()
            pieces.release()
            raws.clear()
            submit(payload, by_value, blocks, lent.hand_over)
            return
    finally:
        lent.release()
    # There is no room for blocks: all of it goes through the pipe.
    pieces, by_value = _pieces(value, theirs, None)
    submit(pieces.whole(), by_value, [], tuple)


def _stored(pieces: Pieces, raws: List[Any], lent: Lent) -> Optional[List[bytes]]:
    """Copy a large pickle and its large buffers into blocks; return their entries.

    None if there is no room for all of them.
    """
    todo: List[Any] = [([raw], raw.nbytes) for raw in raws]
    if pieces.size > wire.CROSSOVER:
        todo.insert(0, (pieces, pieces.size))
    lent.reserve([size for _, size in todo])
    entries: List[bytes] = []
    for parts, size in todo:
        entry = lent.store(parts, size)
        if entry is None:
            return None
        entries.append(entry)
    return entries


def _pieces(value: Tuple[Any, ...], theirs: str, raws: Any) -> Tuple[Pieces, str]:
    """Pickle a call; return the pieces, and a name if code travels in them.

    ``raws``: a list that takes the large buffers; None leaves them in the pickle.
    """
    calls.learn_reducers()
    pieces = calls.Pieces()
    take = None if raws is None else calls.taker(raws)
    error: Optional[Exception] = None
    try:
        pickler = calls.Pickler(pieces, 5, buffer_callback=take)
        if calls.own_reducers:
            import copyreg

            pickler.dispatch_table = {**copyreg.dispatch_table, **calls.own_reducers}
        pickler.dump(value)
        # What the program's script defines is found in __main__ of this worker, but not in that of
        # a worker that has not run such a call. Text with this name in it travels that way too.
        if not any(type(piece) is bytes and b"__main__" in piece for piece in pieces):
            pieces.keep(pickler)
            return pieces, ""
    except _ERRORS as caught:
        error = caught
    pieces.clear()
    if raws:
        raws.clear()
    return _pieces_by_value(value, theirs, error, pieces, take)


def _pieces_by_value(
    value: Tuple[Any, ...], theirs: str, error: Optional[Exception], pieces: Pieces, take: Any
) -> Tuple[Pieces, str]:
    """Pickle a call with code in it. ``error`` says why it could not be pickled without, if so."""
    from .pickler import dump_by_value

    name = injection.name_of(value[0]) if len(value) == 3 else "an argument"
    try:
        pieces.keep(dump_by_value(value, theirs, pieces, take))
    except _ERRORS as second:
        if error is None or (theirs and isinstance(second, calls.PicklingError)):
            raise  # it says why the code of a function cannot travel
        raise error from None
    return pieces, name
