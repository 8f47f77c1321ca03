"""PyInstaller: where the hook is that collects what a frozen program needs of this package.

PyInstaller finds ``get_hook_dirs`` by the entry point group ``pyinstaller40`` (its manual,
"Providing PyInstaller Hooks with your Package"), so a program is frozen without any option for this
library.
"""

from __future__ import annotations

import os


def get_hook_dirs() -> list[str]:
    """Return the folder of the hooks."""
    return [os.path.dirname(os.path.abspath(__file__))]
