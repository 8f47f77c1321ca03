"""How a command says that it cannot go on."""

from __future__ import annotations


class CommandError(Exception):
    """A command cannot go on; ``main`` prints the message and ends with the code.

    Attributes:
        code: the exit code.
    """

    def __init__(self, message: str, code: int = 2) -> None:
        super().__init__(message)
        self.code = code
