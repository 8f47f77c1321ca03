"""What the host has sent to this worker besides calls.

The records of the bulk pipe: functions that calls name, host settings, and pieces of objects by
value.

Order: the host queues records before the frame that refers to them. So when a call refers to
something that is not known, records are read until it is there; what belongs to frames that the
host took back is dropped on the way.

Threads: the worker's main thread only.
"""

from __future__ import annotations

from . import wire
from .calls import loads
from .channel import ChannelLost, describe

TYPE_CHECKING = False  # importing typing costs 6 ms of a start
if TYPE_CHECKING:
    from typing import Any, Dict, Set

    from .channel import Channel

#: The host's project folders and levels of loggers as last received.
_settings_in_use = b""


class Definitions:
    """The functions of a worker, and the records from which they come.

    Invariant: a record is taken whole, or this worker ends. One that was read in part, or whose
    content is lost, would be missed by the calls that follow.

    Args:
        channel: the pipes; the bulk pipe is read here alone, once the worker was configured.

    Attributes:
        functions: number -> function.
        without_handle: those of them that get no handle.
        task_positions: number -> where the parameter ``task`` of the function stands, None if it
            is not to be filled; see ``injection``.
        settings_number: number of the host settings that were received last.
        tries: a call that is not the first try, and the number of its try.
        contexts: number of a call -> what it takes along of its caller's context, until it runs.
        forgotten: how many FORGET records were read.
    """

    def __init__(self, channel: Channel) -> None:
        self.functions: Dict[int, Any] = {}
        self.without_handle: Dict[int, Any] = {}
        self.task_positions: Dict[int, Any] = {}
        self.settings_number = 0
        self.forgotten = 0
        self.tries = (0, 1)
        self.contexts: Dict[int, bytes] = {}
        self._channel = channel
        self._definitions: Dict[int, bytes] = {}
        # Numbers of the functions that their definition holds.
        self._by_value: Set[int] = set()

    def begin(self, settings_number: int) -> None:
        """Note which host settings came with the configuration."""
        self.settings_number = settings_number

    def define(self, number: int) -> Any:
        """Return the function of a definition, reading records until it is there.

        A failure is raised anew for every call of it.
        """
        definition = self._definitions.get(number)
        if definition is None:
            self.read_until(wire.DEFINITION, number)
            definition = self._definitions[number]
        from . import imports
        from .injection import position_of_task

        found = loads(definition)
        function = imports.resolve(found)
        if found[0] == "value":
            self._by_value.add(number)
        self.task_positions[number] = where = position_of_task(function)
        self.functions[number] = function
        if where is None:
            self.without_handle[number] = function
        return function

    def read_until(self, kind: int, ident: int) -> Any:
        """Read records up to the one that is asked for; return its content.

        Guarantee: whatever is raised meanwhile (by a signal handler, or because memory is short) is
        the end of this worker.

        Raises:
            ChannelLost: it is unknown how much has been read.
        """
        try:
            return self._read_records(kind, ident)
        except ChannelLost:
            raise
        except BaseException as error:
            raise ChannelLost(
                "%s was raised while it read what belongs to a call" % describe(error)
            ) from error

    def _read_records(self, kind: int, ident: int) -> Any:
        while True:
            got, number, data = self._channel.read_record()
            if got == wire.DEFINITION:
                self._definitions[number] = bytes(data)
            elif got == wire.SETTINGS:
                use_settings(data)
                self.settings_number = number
            elif got == wire.PIECE:
                from . import objects

                objects.receive(number, bytes(data))
            elif got == wire.FORGET and number:
                self.functions.pop(number, None)
                self.without_handle.pop(number, None)
                self._definitions.pop(number, None)
                self.task_positions.pop(number, None)
                self._by_value.discard(number)
            elif got == wire.FORGET:
                from . import objects

                objects.forget(loads(data))
            elif got == wire.ATTEMPT:
                self.tries = (number, int.from_bytes(data, "little"))
            elif got == wire.CONTEXT:
                self.contexts[number] = bytes(data)
            if got == wire.FORGET:
                number = self.forgotten = self.forgotten + 1
            if got == kind and number == ident:
                return data

    def tidy(self, count: int) -> None:
        """Read records until ``count`` of them have named what the host has dropped.

        Calls that fit into a frame or onto the shared page bring no record with them, so that the
        worker of a program which makes no others would never forget anything.
        """
        if self.forgotten < count:
            self.read_until(wire.FORGET, count)

    def drop_stale(self, kept: Any = None) -> None:
        """Have functions by value read again when they are called.

        What they refer to has been changed.

        Args:
            kept: a function to which the change is known, or None.
        """
        stale = [
            number
            for number in self._by_value
            if kept is None or self.functions.get(number) is not kept
        ]
        for number in stale:
            self.functions.pop(number, None)
            self.without_handle.pop(number, None)
        self._by_value.difference_update(stale)


def use_settings(data: bytes) -> None:
    """Make the host's project folders importable, and use the levels of its loggers."""
    from . import imports, records

    global _settings_in_use  # a fact about this process
    if data == _settings_in_use:
        # a fork: the fork server has them, and what the preload has changed since stands, as in a
        # worker that imports it itself
        return
    _settings_in_use = bytes(data)
    paths, levels = loads(data)
    imports.use_project_paths(paths)
    records.use_levels(levels)
