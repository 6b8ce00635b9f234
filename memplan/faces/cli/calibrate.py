"""Measure what this machine sustains, for plans that are made for it.

It takes under a minute, and is best done while nothing else runs. Each figure is shown beside the
assumed one.
"""

import argparse

from memplan.faces.cli.options import add_json
from memplan.faces.cli.terminal import Progress


def add_options(parser: argparse.ArgumentParser) -> None:
    """What can be typed."""
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--quick", action="store_true", help="in about 8 seconds, less exactly")
    how.add_argument("--forget", action="store_true", help="remove what was measured of this machine")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Measure and print, or forget."""
    from memplan.faces import calibrate
    from memplan.faces.report import calibration

    if args.forget:
        forgotten = calibration.forgotten_as_json if args.json else calibration.forgotten
        print(forgotten(calibrate.forget()))
        return 0
    with Progress() as progress:
        found = calibrate.measure(calibrate.QUICK if args.quick else calibrate.SECONDS, progress)
    show = calibration.as_json if args.json else calibration.calibration
    print(show(found.machine, found.calibration, found.file))
    return 0
