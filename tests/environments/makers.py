"""Programs that the tests of faults start: ``python -m tests.environments.makers WHAT ...``.

Each writes one JSON line to its standard output.
"""

from __future__ import annotations

import json
import os
import sys
from concurrent.futures import CancelledError
from typing import Any

from wetlands_executor import Environment, EnvironmentCreationError, EnvironmentSpec


def main() -> None:
    what, backend, limit = sys.argv[1], sys.argv[2], int(sys.argv[3])
    spec = EnvironmentSpec.from_dict(json.loads(sys.argv[4]))
    seen: list[str] = []

    def on_progress(progress: Any) -> None:
        if progress.phase.value not in seen:
            seen.append(progress.phase.value)
            if what == "tell":
                print(progress.phase.value, flush=True)

    if what == "wait":
        print("ready", flush=True)
        sys.stdin.readline()
    if limit:
        import resource
        import signal

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    answer: dict[str, Any]
    try:
        made = Environment.create(spec, backend=backend, on_progress=on_progress)
        answer = {"prefix": str(made.prefix)}
    except (EnvironmentCreationError, CancelledError, KeyboardInterrupt) as error:
        answer = {"error": type(error).__name__, "text": str(error)}
    answer["seen"] = seen
    os.write(1, json.dumps(answer).encode() + b"\n")


if __name__ == "__main__":
    main()
