"""Cells of a notebook, and a kernel that runs them: ``python notebooks.py REPORT WORKER``.

A shape is a list of cells that set ``got``, and what ``repr(got)`` has to be.
The kernel is a process of ``ipykernel``; its executor has workers of another version of Python.
The report says for each shape what came out, or the error.
"""

import json
import sys
import tempfile
from pathlib import Path

#: Seconds that one cell may take.
DEADLINE = 60

SCRIPT = """
import math
def of_script(x):
    return math.floor(x) + step()
if __name__ == "__main__":
    import operator
    def step():
        return operator.add(1, 1)
"""


def shapes() -> dict[str, tuple[list[str], str]]:
    """Return name -> (cells, what ``repr(got)`` has to be), read from ``cells.txt``."""
    found = {}
    for part in (Path(__file__).parent / "cells.txt").read_text(encoding="utf-8").split("=== ")[1:]:
        name, _, rest = part.partition("\n")
        cells, _, wanted = rest.rpartition("\n>>> ")
        found[name] = (cells.split("\n---\n"), wanted.strip())
    return found


START = """
from wetlands_executor import CondaEnvExecutor
executor = CondaEnvExecutor({worker!r}, max_workers=1)
def run(function, *args):
    return executor.submit(function, *args).result(30)
kept = []
def keep(value):
    global got
    got = value
"""


def main(report: str, worker: str) -> None:
    from jupyter_client.manager import start_new_kernel  # type: ignore[import-not-found]

    found = {}
    with tempfile.NamedTemporaryFile("w", suffix=".py") as script:
        script.write(SCRIPT)
        script.flush()
        manager, client = start_new_kernel(startup_timeout=DEADLINE)
        try:
            client.execute(START.format(worker=worker), reply=True, timeout=DEADLINE)
            for name, (cells, _wanted) in shapes().items():
                reply = {}
                client.execute("got = None", reply=True, timeout=DEADLINE)
                for cell in cells:
                    text = cell.replace("{script}", script.name)
                    answer = client.execute(
                        text, reply=True, timeout=DEADLINE, user_expressions={"got": "got"}
                    )
                    reply = answer["content"]
                    if reply["status"] != "ok":
                        break
                got = (
                    reply.get("user_expressions", {})
                    .get("got", {})
                    .get("data", {})
                    .get("text/plain")
                )
                found[name] = (
                    got if reply["status"] == "ok" else f"{reply['ename']}: {reply['evalue']}"
                )
            client.execute("executor.shutdown()", reply=True, timeout=DEADLINE)
        finally:
            client.stop_channels()
            manager.shutdown_kernel(now=True)
    with open(report, "w", encoding="utf-8") as stream:
        json.dump(found, stream)


if __name__ == "__main__":
    main(*sys.argv[1:])
