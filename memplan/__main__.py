"""The command line: python -m memplan, or memplan."""

import sys

from memplan.faces.cli import main as main

if __name__ == "__main__":
    sys.exit(main())
