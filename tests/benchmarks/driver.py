"""The process that one system runs in, for one case.

``python -m tests.benchmarks.driver FD CASE SYSTEM``.

It answers with one line of JSON on its own descriptor to each line of its stdin: ``run COUNT``
measures once, ``end`` closes the pool. Its stdout and stderr belong to the systems. Nothing is
imported at the top that a worker which imports this module (spawn does) would have to pay for.
"""

from __future__ import annotations

import os
import sys


def main() -> None:
    import gc
    import json

    from .registry import cases
    from .systems import SYSTEMS

    answers = int(sys.argv[1])
    os.set_inheritable(answers, False)
    case = cases()[sys.argv[2]]
    name = sys.argv[3]
    if case.pinned and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})

    def answer(**fields: object) -> None:
        os.write(answers, (json.dumps(fields) + "\n").encode())

    other = case.others.get(name)
    pool = None
    try:
        if other is None:
            system = SYSTEMS[name]
            pool = system.open(case.workers) if case.workers else system
        answer(ready=True)
        for order in iter(sys.stdin.readline, ""):
            if order.strip() == "end":
                break
            count = int(order.split()[1])
            gc.collect()
            figures = other(count) if other is not None else case.measure(pool, count)
            answer(figures=figures)
        if pool is not None and case.workers:
            pool.close()
    except BaseException as error:
        import traceback

        traceback.print_exc()
        answer(error=f"{type(error).__name__}: {error}"[:500])
        sys.stderr.flush()
        # what hangs at exit is ended by the one who started us; nothing more is expected of this
        # process
        os._exit(1)
    answer(ended=True)


if len(sys.argv) > 2 and sys.argv[2].startswith(("functions", "payloads")):
    # A script with functions of its own, in this process and in those that import it (spawn does).
    _file = os.path.join(os.path.dirname(os.path.abspath(__file__)), "script.py")
    with open(_file) as _stream:
        exec(compile(_stream.read(), _file, "exec"))

if __name__ == "__main__":
    main()
