"""Work that is done in several processes, which end with the one that began them."""

import logging
import os
import signal
import warnings
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import active_children, get_context, parent_process
from threading import Thread
from typing import TypeVar

import psutil

from memplan.errors import MemplanError
from memplan.facts import GIB

Item = TypeVar("Item")
Result = TypeVar("Result")
NEEDS = GIB
"""Host memory of a process: 0.7 GiB after the dry runs and the plans of flux.1-dev and wan2.1-t2v-14b, measured."""


def usual() -> int:
    """As many processes as there are cores, and as the available host memory has room for."""
    return max(1, min(os.cpu_count() or 1, psutil.virtual_memory().available // NEEDS))


def worked(
    groups: Sequence[Sequence[Item]], work: Callable[[Item], Result], processes: int = 1
) -> Generator[tuple[Item, Result]]:
    """Each item of each group with what `work` makes of it, in the order in which they are done.

    The first of each group is done before the others of it begin: what it leaves in a cache, they find there. With one
    process it is this one. Raises MemplanError where a process is ended from outside; errors of `work` go on.
    """
    if processes == 1:
        yield from ((item, work(item)) for group in groups for item in group)
        return
    before = set(active_children())
    pool = ProcessPoolExecutor(processes, get_context("spawn"), initializer=begin)
    try:
        waiting = {pool.submit(work, group[0]): group for group in groups if group}
        while waiting:
            for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                first, *rest = waiting.pop(future)
                yield first, future.result()
                waiting |= {pool.submit(work, item): [item] for item in rest}
    except BaseException as error:
        for child in set(active_children()) - before:
            child.terminate()
        if isinstance(error, BrokenProcessPool):
            raise MemplanError(
                "one of the processes was ended from outside, as systems do when host memory runs out: close what else "
                "takes memory, or use fewer processes"
            ) from error
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def begin() -> None:
    """A process that says nothing of what libraries say, leaves Ctrl-C to its parent, and ends with it."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_follow, daemon=True).start()


def _follow() -> None:
    """Ends this process when its parent is gone, however that ended."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
