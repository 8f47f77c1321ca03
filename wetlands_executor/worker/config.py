"""The configuration of a process that starts: the keys, for both ends, and their types.

The host fills in both (``pool/start.py``, ``pool/fork_server.py``); a fork server makes that of its
warm-up itself, from its own. Nothing is executed here when a worker starts.
"""

from __future__ import annotations

TYPE_CHECKING = False  # importing typing costs 6 ms of a start
if TYPE_CHECKING:
    from typing import Any, List, Optional, Tuple, TypedDict

    class ProcessConfig(TypedDict):
        """Of every process: a worker, or what forks workers.

        Attributes:
            magic: how bytecode has to be marked to travel; None sends none.
            host_settings: the host's settings, pickled.
            authkey: of the host's ``multiprocessing``.
            preload: modules to import.
            version: of the host's Python.
            argv: arguments of the host's program.
            main: folder, file and name of its ``__main__``.
            instances: with which the ids of its task instances begin.
        """

        magic: Optional[str]
        host_settings: bytes
        authkey: bytes
        preload: List[str]
        version: str
        argv: List[str]
        main: Tuple[Any, ...]
        instances: str

    class WorkerConfig(ProcessConfig):
        """Of a worker.

        Attributes:
            nonce: of the incarnation; frames carry it.
            settings_number: number of the settings.
            initializer: pickled function and arguments; None if there is none.
            initializer_code: names the function if it travels as bytecode; else None.
            pieces: (number, content) of large objects that the initializer reaches.
            print_frames: what tasks print goes into frames, because pipes cannot be polled.
            carries: large results may lie in shared memory.
            incarnation: owner word of the worker in shared memory.
            arena_limit: bytes of shared memory that the results may take; None is no limit.
            debugger: where the host's terminal is lent; None lends none.
            debugpy: let debuggers attach.
            pool, max_workers: number of its pool in the host, and of the workers of that.
        """

        nonce: int
        settings_number: int
        initializer: Optional[bytes]
        initializer_code: Any
        pieces: List[Tuple[int, bytes]]
        print_frames: bool
        carries: bool
        incarnation: int
        arena_limit: Optional[int]
        debugger: Optional[str]
        debugpy: bool
        pool: int
        max_workers: int


def idle(config: ProcessConfig) -> WorkerConfig:
    """Return the configuration of a worker that imports, shares and prints nothing."""
    return {
        "magic": None,
        "host_settings": config["host_settings"],
        "authkey": config["authkey"],
        "preload": [],
        "version": config["version"],
        "argv": config["argv"],
        "main": config["main"],
        "instances": config["instances"],
        "nonce": 0,
        "settings_number": 1,
        "initializer": None,
        "initializer_code": None,
        "pieces": [],
        "print_frames": False,
        "carries": False,
        "incarnation": 0,
        "arena_limit": 0,
        "debugger": None,
        "debugpy": False,
        "pool": 0,
        "max_workers": 1,
    }
