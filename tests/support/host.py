"""A host program in a process of its own: it gets signals, is forked or killed, or is measured."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


class Host:
    """A program of a module of host programs, run as ``python -m MODULE NAME ARGS``.

    Attributes:
        process: it, with pipes for its three streams and a session of its own.
    """

    def __init__(self, module: str, name: str, *args: object, **env: str) -> None:
        variables = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONFAULTHANDLER": "1", **env}
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", module, name, *map(str, args)],
            cwd=ROOT,
            env=variables,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def line(self) -> str:
        """Return the next line that the host prints; fail with its stderr if it ends instead."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"the host ended: {self.process.communicate(timeout=20)}"
        return line.rstrip("\n")

    def tell(self, text: str = "go") -> None:
        """Give the host a line on its standard input."""
        assert self.process.stdin is not None
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()

    def interrupt(self) -> None:
        """Be a Ctrl-C on its terminal: SIGINT to its process group (workers have sessions of
        their own).
        """
        os.killpg(self.process.pid, signal.SIGINT)

    def finish(self, timeout: float = 60.0) -> tuple[int, str, str]:
        """Wait for the end; return (exit code, stdout, stderr).

        Args:
            timeout: seconds, after which the stacks of its threads are shown.
        """
        try:
            out, err = self.process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGABRT)  # faulthandler shows where it hangs
            out, err = self.process.communicate(timeout=10)
            pytest.fail(f"the host hangs:\n{out}\n{err}", pytrace=False)
        return self.process.returncode, out, err

    def close(self) -> None:
        """End it, whatever it does."""
        if self.process.poll() is None:
            self.process.kill()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None:
                try:
                    stream.close()
                except BrokenPipeError:
                    continue  # what was not read by the host
        self.process.wait(10)
