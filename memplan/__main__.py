"""python -m memplan."""

import sys

from memplan.faces.cli import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
