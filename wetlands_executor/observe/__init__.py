"""Watching tasks: progress on a terminal, in a notebook, and in logs.

``from wetlands_executor.observe import progress``. Uses the public names only, and nothing of the
library imports it.
"""

from wetlands_executor.observe.command import CommandDisplay, open_display
from wetlands_executor.observe.progress import Progress, progress

__all__ = ["CommandDisplay", "Progress", "open_display", "progress"]
