"""``progress``: a bar around a block or a loop."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from concurrent.futures import Future, as_completed
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from wetlands_executor.observe import bar_of
from wetlands_executor.observe.bars import Bar, ItemCounts
from wetlands_executor.observe.display import EVERY, Display, join, part

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

T = TypeVar("T")
F = TypeVar("F", bound="Future[Any]")


class Progress(Generic[T]):
    """Bars that are shown while a block runs, or a loop. Made by ``progress``."""

    def __init__(
        self,
        what: tuple[Any, ...],
        total: int | None,
        description: str | None,
        leave: bool | None,
        stream: Any,
        every: float,
    ) -> None:
        self._stream, self._every = stream, every
        self._display: Display | None = None
        self._counts: ItemCounts | None = None
        self._items: Iterable[Any] | None = None
        self._leave = leave
        self._bars = self._make(what, total, description)

    def _make(self, what: tuple[Any, ...], total: int | None, description: str | None) -> list[Bar]:
        leave = self._leave
        if what and all(map(bar_of.is_executor, what)):
            self._leave = leave if leave is not None or len(what) == 1 else True
            return [bar_of.bar_of_executor(each, total, description, self._leave) for each in what]
        if len(what) != 1:
            raise TypeError(
                f"progress() takes executors, or one iterable of results or of tasks; not "
                f"{len(what)} objects of which {_others(what)}"
            )
        (items,) = what
        if isinstance(items, Future):
            items = [items]
        if bar_of.are_futures(items):
            self._items = items
            return [bar_of.bar_of_tasks(items, description, leave)]
        try:
            iter(items) if not hasattr(items, "__next__") else None
        except TypeError:
            raise TypeError(
                f"progress({items!r}): neither an executor nor something to iterate over"
            ) from None
        self._items = items
        bar, self._counts = bar_of.bar_of_items(items, total, description, leave)
        return [bar]

    # --- a block

    def __enter__(self) -> Self:
        """Show the bars."""
        if self._display is None:
            self._display = join(self._bars, self._stream, self._every)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Show them no more; the last state stays."""
        self._end()

    def _end(self) -> None:
        display, self._display = self._display, None
        if display is not None:
            part(display, self._bars)

    def write(self, text: object = "") -> None:
        """Write a text on lines of its own, above the bars; ``print`` does the same."""
        lines = str(text).splitlines() or [""]
        if self._display is not None:
            self._display.lines(lines)
        else:
            print("\n".join(lines))

    # --- a loop

    def __iter__(self) -> Generator[T, None, None]:
        """Yield the items as they come, or the tasks as they end, with a bar meanwhile.

        Raises:
            TypeError: it is about executors.
        """
        items = self._items
        if items is None:
            raise TypeError(
                "progress(executor) is for a `with` block; a loop is over progress(executor.map("
                "...)), or over progress(tasks)"
            )
        if hasattr(items, "__next__"):
            self._items = ()  # this loop is the only one that it can serve, and holds it alone
        return self._tasks(items) if self._counts is None else self._counted(items, self._counts)

    def _tasks(self, tasks: Iterable[Any]) -> Generator[T, None, None]:
        within = self._display is not None
        self.__enter__()
        try:
            yield from as_completed(tasks)  # type: ignore[misc] # T is the type of the tasks
        finally:
            if not within:
                self._end()

    def _counted(self, items: Iterable[T], counts: ItemCounts) -> Generator[T, None, None]:
        within = self._display is not None
        self.__enter__()
        try:
            yield from counts.counted(items)
            counts.finish()
        finally:
            if not within:
                self._end()


def _others(what: tuple[Any, ...]) -> str:
    names = [type(each).__name__ for each in what if not bar_of.is_executor(each)]
    return f"{', '.join(names)} {'is' if len(names) == 1 else 'are'} no executor"


@overload
def progress(
    what: Iterable[T],
    /,
    *,
    total: int | None = None,
    description: str | None = None,
    leave: bool | None = None,
    stream: Any = None,
    every: float = EVERY,
) -> Progress[T]: ...


@overload
def progress(
    *what: Any,
    total: int | None = None,
    description: str | None = None,
    leave: bool | None = None,
    stream: Any = None,
    every: float = EVERY,
) -> Progress[Any]: ...


def progress(
    *what: Any,
    total: int | None = None,
    description: str | None = None,
    leave: bool | None = None,
    stream: Any = None,
    every: float = EVERY,
) -> Progress[Any]:
    """Show how far tasks are: on a terminal, in a notebook, or as plain lines.

    ``with progress(executor): ...`` shows all tasks of an executor while the block runs; several
    executors have a bar each. ``for result in progress(executor.map(...)): ...`` counts the results
    that the loop has taken; order, exceptions and laziness are those of the iterator.
    ``for task in progress(tasks): ...`` yields the tasks in the order in which they end.

    On a terminal this needs ``rich`` (``pip install 'wetlands-executor[progress]'``); without it,
    and where the output is no terminal, there is a plain line now and then. What is printed or
    logged meanwhile stands above the bars, in whole lines.

    Args:
        *what: executors; or one iterable: an iterator of ``map``, tasks (any futures), anything.
        total: number of items, if ``what`` does not say it.
        description: stands before the bar; None is the name of an executor's environment.
        leave: the last state stays when it is over; None is True for the outermost.
        stream: where to draw; None is the notebook, or else ``sys.stderr``.
        every: seconds between two plain lines.

    Raises:
        TypeError: ``what`` is neither of these.
    """
    return Progress(what, total, description, leave, stream, every)
