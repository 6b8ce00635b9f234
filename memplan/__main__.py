"""python -m memplan."""
# PYTHON_ARGCOMPLETE_OK - by which shells that complete every Python program find this one

import sys

from memplan.faces.cli import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
