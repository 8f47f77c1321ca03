"""The command line: ``wetlands-executor`` and ``python -m wetlands_executor``.

One module a command (``commands.py`` lists them), each with the texts of its help, a
``describe(parser)``, which adds its arguments, and a ``run(arguments)``, which returns an exit code
and imports what the command needs. So ``--help`` and completion answer at once.

``shipped/in_worker.py`` is the one file that runs in workers: it is sent there by its content.
"""

from __future__ import annotations

from wetlands_executor.cli.dispatch import main

__all__ = ["main"]
