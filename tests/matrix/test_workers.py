"""Work in processes: all of it is done, the first of each group first, and no process outlives its parent."""

import math
import os
import subprocess
import sys
import time
from multiprocessing import active_children
from pathlib import Path

import psutil
import pytest

from memplan.errors import MemplanError
from memplan.faces.matrix.workers import usual, worked

GROUPS = [[1.0, 4.0, 9.0], [16.0, 25.0], []]
ROOTS = {1.0: 1.0, 4.0: 2.0, 9.0: 3.0, 16.0: 4.0, 25.0: 5.0}


def test_one_process_is_this_one() -> None:
    assert list(worked(GROUPS, lambda number: (number, os.getpid()))) == [(n, (n, os.getpid())) for n in ROOTS]


@pytest.mark.slow
def test_several_do_all_of_it() -> None:
    found = list(worked(GROUPS, math.sqrt, 2))
    assert dict(found) == ROOTS
    order = [number for number, _ in found]
    assert all(order.index(group[0]) <= order.index(number) for group in GROUPS for number in group)
    assert active_children() == []


@pytest.mark.slow
def test_errors_go_on_and_processes_end() -> None:
    with pytest.raises(ValueError, match=r"math domain|nonnegative"):
        list(worked([[-1.0], [4.0]], math.sqrt, 2))
    assert active_children() == []


@pytest.mark.slow
def test_a_process_that_is_ended_from_outside_is_a_sentence() -> None:
    with pytest.raises(MemplanError, match="one of the processes was ended from outside"):
        list(worked([[3]], os._exit, 2))
    assert active_children() == []


@pytest.mark.slow
def test_who_stops_asking_ends_the_processes() -> None:
    start, running = time.monotonic(), worked([[0.0], [60.0]], time.sleep, 2)
    assert next(running) == (0.0, None)
    running.close()
    assert active_children() == []
    assert time.monotonic() - start < 30


SLEEPERS = """
if __name__ == "__main__":
    import time
    from memplan.faces.matrix.workers import worked
    print("begun", flush=True)
    list(worked([[60.0], [60.0]], time.sleep, 2))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="a process of Windows is not killed by a signal")
def test_processes_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "sleepers.py"
    script.write_text(SLEEPERS, encoding="utf-8")
    parent = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE)
    end = time.monotonic() + 60
    children: list[psutil.Process] = []
    while len(children) < 3 and time.monotonic() < end:  # two that work, and multiprocessing's tracker of resources
        children = psutil.Process(parent.pid).children(recursive=True)
        time.sleep(0.1)
    time.sleep(2.0)
    parent.kill()
    parent.wait()
    gone, left = psutil.wait_procs(children, timeout=20)
    assert len(gone) >= 2
    assert left == []


def test_there_is_room_for_one() -> None:
    assert 1 <= usual() <= (os.cpu_count() or 1)
