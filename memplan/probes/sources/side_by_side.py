"""Waits for several answers at once, and for none of them forever."""

from collections.abc import Callable
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any

AT_ONCE = 8


def each(work: Callable[[Any], Any], items: list[Any], patience: float) -> list[Any]:
    """`work` done for each item, several at once; the results in the order of the items.

    Raises what `work` raises, and TimeoutError when nothing is finished for `patience` seconds. The threads are
    daemons: one that waits for a server forever keeps nobody from leaving.
    """
    todo: SimpleQueue[tuple[int, Any]] = SimpleQueue()
    done: SimpleQueue[tuple[int, Any, Exception | None]] = SimpleQueue()
    for pair in enumerate(items):
        todo.put(pair)
    for _ in range(min(AT_ONCE, len(items))):
        Thread(target=_work, args=(work, todo, done), daemon=True).start()
    results = dict(_outcome(done, patience) for _ in items)
    return [results[number] for number in range(len(items))]


def _work(work: Callable[[Any], Any], todo: SimpleQueue[Any], done: SimpleQueue[Any]) -> None:
    while True:
        try:
            number, item = todo.get_nowait()
        except Empty:
            return
        try:
            done.put((number, work(item), None))
        except Exception as error:
            done.put((number, None, error))


def _outcome(done: SimpleQueue[Any], patience: float) -> tuple[int, Any]:
    try:
        number, result, error = done.get(timeout=patience)
    except Empty:
        raise TimeoutError(f"nothing was finished for {patience:g} seconds") from None
    if error is not None:
        raise error
    return number, result
