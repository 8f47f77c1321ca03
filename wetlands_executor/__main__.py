"""``python -m wetlands_executor``."""

from __future__ import annotations

import sys

from wetlands_executor.cli import main

if __name__ == "__main__":
    sys.exit(main())
