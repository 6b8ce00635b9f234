"""Keeps measured runs in a SQLite file of the user's cache directory. Nothing of it leaves the machine.

Several processes may write at once, as the file is in WAL mode and a run is one transaction: a process that is killed
leaves either the whole run or nothing of it. Whatever is wrong with the file or the disk is one warning.
"""

import json
import os
import sqlite3
import time
import warnings
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import astuple, fields
from functools import cache
from pathlib import Path
from urllib.parse import quote

from memplan.faces import store
from memplan.faces.history.record import Figures, Phase, Place, Record
from memplan.faces.history.schema import CHANGES, VERSION

PATIENCE = 20.0
"""Seconds to wait for other processes that write."""
KEPT = 500
"""Runs of one class of pipelines on one card, of which the newest stay: they are read in a tenth of a second."""


class _Unusable(Exception):
    """Why the file is left as it is; the sentence begins with its path."""


def file() -> Path:
    """Where the runs are kept."""
    return store.directory() / "history.sqlite"


def save(run: Record) -> bool:
    """Keep a run; where that cannot be there is a warning, and False."""
    try:
        file().parent.mkdir(parents=True, exist_ok=True)
        with closing(_opened(file())) as connection, _transaction(connection):
            _insert(connection, run)
            _prune(connection, run)
    except (OSError, sqlite3.Error, _Unusable) as error:
        _warn(f"the run is not kept: {file()} {_said(error)}")
        return False
    return True


def load(model: str = "") -> tuple[Record, ...]:
    """The runs that are kept, oldest first; of one model where its name, or its pipeline's class, is given.

    A file that cannot be read is reported, and taken for none.
    """
    path = file()
    try:
        if not path.exists():
            return ()
        with closing(_connect(path, "mode=ro" if os.access(path.parent, os.W_OK) else "immutable=1")) as connection:
            return tuple(_runs(connection, model)) if _version(connection, path) else ()
    except (OSError, sqlite3.Error, ValueError, _Unusable) as error:
        _warn(f"no measured runs are known: {path} {_said(error)}")
        return ()


def forget() -> Path | None:
    """Remove what is kept; the value is the file, or None where there was none. Raises OSError."""
    path = file()
    there = path.exists()
    for name in (path, *(path.with_name(path.name + end) for end in ("-wal", "-shm"))):
        name.unlink(missing_ok=True)
    return path if there else None


# ---- the file --------------------------------------------------------------------------------------------------------
def _connect(path: Path, how: str) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{quote(str(path))}?{how}", uri=True, timeout=PATIENCE, isolation_level=None)


def _opened(path: Path) -> sqlite3.Connection:
    """The file, made or brought to this version where need be."""
    connection = _connect(path, "mode=rwc")
    try:
        _into_wal(connection)
        if _version(connection, path) < VERSION:
            with _transaction(connection):
                _change(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def _into_wal(connection: sqlite3.Connection) -> None:
    """The mode is kept with the file. Who changes it must be alone, for which SQLite itself does not always wait."""
    end = time.monotonic() + PATIENCE
    while connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        try:
            connection.execute("PRAGMA journal_mode = wal")
            return  # a file system that cannot share memory keeps its other mode
        except sqlite3.OperationalError:
            if time.monotonic() > end:
                raise
            time.sleep(0.01)


def _version(connection: sqlite3.Connection, path: Path) -> int:
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > VERSION:
        raise _Unusable(f"is of version {version}, and this memplan knows {VERSION}")
    return version


def _change(connection: sqlite3.Connection, path: Path) -> None:
    for change in CHANGES[_version(connection, path) :]:  # asked anew: another process may have been first
        for statement in filter(str.strip, change.split(";")):
            connection.execute(statement)
    connection.execute(f"PRAGMA user_version = {VERSION}")


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Generator[None]:
    """All or nothing; it waits for its turn to write."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


# ---- rows ------------------------------------------------------------------------------------------------------------
_PLACE = tuple(f.name for f in fields(Place))
_RUN = ("model", "class_name", "content", "digest", "call", "plan", "device", "beside", "clean", "why_none")


def _insert(connection: sqlite3.Connection, run: Record) -> None:
    values = {name: getattr(run, name) for name in _RUN} | {"call": json.dumps(run.call)}
    row = (run.at, *astuple(run.place), *values.values())
    names = ", ".join(("at", *_PLACE, *_RUN))
    number = connection.execute(f"INSERT INTO runs ({names}) VALUES ({_marks(row)})", row).lastrowid
    for place, phase in enumerate(run.phases):
        line = (number, place, phase.phase, phase.component, *astuple(phase.predicted), *astuple(phase.measured))
        connection.execute(f"INSERT INTO phases VALUES ({_marks(line)})", line)


def _prune(connection: sqlite3.Connection, newest: Record) -> None:
    """Removes what is older than the newest runs of the same class on the same card."""
    which = "SELECT id FROM runs WHERE class_name = ? AND card = ? ORDER BY id DESC LIMIT -1 OFFSET ?"
    old = connection.execute(which, (newest.class_name, newest.place.card, KEPT)).fetchall()
    connection.executemany("DELETE FROM phases WHERE run = ?", old)
    connection.executemany("DELETE FROM runs WHERE id = ?", old)


def _marks(row: tuple[object, ...]) -> str:
    return ", ".join("?" * len(row))


def _runs(connection: sqlite3.Connection, model: str) -> Iterator[Record]:
    names = ", ".join(("id", "at", *_PLACE, *_RUN))
    chosen, given = ("WHERE ? IN (model, class_name)", (model,)) if model else ("", ())
    for number, at, *row in connection.execute(f"SELECT {names} FROM runs {chosen} ORDER BY id", given):
        values = dict(zip(_RUN, row[len(_PLACE) :], strict=True))
        values["call"] = tuple((name, shown) for name, shown in json.loads(values["call"]))
        values["clean"] = bool(values["clean"])
        yield Record(at, Place(*row[: len(_PLACE)]), **values, phases=tuple(_phases(connection, number)))


def _phases(connection: sqlite3.Connection, run: int) -> Iterator[Phase]:
    lines = connection.execute("SELECT * FROM phases WHERE run = ? ORDER BY number", (run,))
    for _, _, phase, component, *figures in lines:
        half = len(fields(Figures))
        yield Phase(phase, component, Figures(*figures[:half]), Figures(*figures[half:]))


# ---- words -----------------------------------------------------------------------------------------------------------
def _said(error: Exception) -> str:
    return str(error) if isinstance(error, _Unusable) else f"cannot be used ({error})"


@cache
def _warn(text: str) -> None:
    """Once for each sentence: a script may make many calls."""
    warnings.warn(f"{text}. `memplan history --forget` removes the file", stacklevel=3)
