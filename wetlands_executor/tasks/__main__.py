"""``python -m wetlands_executor.tasks run MODULE:NAME``."""

import sys

from wetlands_executor.tasks.process import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
