"""What is kept comes back, whoever else writes, is killed, or has broken the file or the disk."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from memplan.faces import store
from memplan.faces.history import database
from memplan.faces.history.schema import VERSION
from tests.history.runs import HERE, run

WRITER = """
import sys, time
from pathlib import Path
from memplan.faces.history import database
from tests.history.runs import run
name, number, gate = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
while not gate.exists():
    time.sleep(0.001)
for i in range(number):
    assert database.save(run(i, model=name))
"""
DIES = """
import os, signal
from memplan.faces.history import database
from tests.history.runs import run
assert database.save(run(0))
marks, asked = database._marks, []
def dying(row):
    asked.append(row)
    if len(asked) == 3:  # the run and one of its four phases are written
        os.kill(os.getpid(), signal.SIGKILL)
    return marks(row)
database._marks = dying
database.save(run(1))
"""


def python(code: str, *args: str) -> "subprocess.Popen[str]":
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-W", "error", "-c", code, *args]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)


# ---- there and back --------------------------------------------------------------------------------------------------
def test_runs_come_back_in_order() -> None:
    runs = [run(0), run(1, model="other", why_none="no GPU"), run(2, class_name="Other", device="cpu", clean=False)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert all(map(database.save, runs))
        assert database.load() == tuple(runs)
        assert database.load("other") == (runs[1],)
        assert database.load("SmallPipeline") == tuple(runs[:2])
        assert database.load("none") == ()


def test_asking_makes_no_file(cache: Path) -> None:
    assert database.load() == ()
    assert database.forget() is None
    assert not cache.exists()


def test_forgetting_removes_every_file(cache: Path) -> None:
    database.save(run())
    assert database.forget() == database.file()
    assert list(cache.iterdir()) == []
    assert database.load() == ()


def test_an_empty_file_is_filled(cache: Path) -> None:
    cache.mkdir()
    database.file().touch()
    assert database.load() == ()
    assert database.save(run())
    assert database.load() == (run(),)


def test_the_newest_runs_of_a_class_on_a_card_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "KEPT", 3)
    others = [run(0, class_name="Other"), run(0, place=replace(HERE, card="another"))]
    for each in (*others, *map(run, range(5))):
        assert database.save(each)
    assert database.load() == (*others, *map(run, (2, 3, 4)))
    connection = sqlite3.connect(database.file())
    assert connection.execute("SELECT count(DISTINCT run) FROM phases").fetchone() == (5,)
    connection.close()


# ---- others ----------------------------------------------------------------------------------------------------------
def test_processes_record_at_once(tmp_path: Path) -> None:
    gate, each = tmp_path / "gate", 30
    names = ("one", "two", "three")
    writers = [python(WRITER, name, str(each), str(gate)) for name in names]
    time.sleep(0.5)  # until they wait, so that they make the file together
    gate.touch()
    for writer in writers:
        assert (writer.wait(60), writer.communicate()[1]) == (0, "")
    for name in names:
        assert database.load(name) == tuple(run(i, model=name) for i in range(each))


def test_a_process_killed_while_it_writes_leaves_whole_runs() -> None:
    writer = python(DIES)
    assert (writer.wait(60), writer.communicate()[1]) == (-signal.SIGKILL, "")
    assert database.file().with_name("history.sqlite-wal").exists()
    assert database.load() == (run(0),)
    assert database.save(run(2))
    assert database.load() == (run(0), run(2))


def test_a_process_killed_at_any_time_leaves_whole_runs(tmp_path: Path) -> None:
    tmp_path.joinpath("gate").touch()
    writer = python(WRITER, "small", "100000", str(tmp_path / "gate"))
    end = time.monotonic() + 60
    while len(database.load()) < 5:
        assert time.monotonic() < end
    writer.kill()
    writer.communicate()
    found = database.load()
    assert found == tuple(map(run, range(len(found))))
    assert database.save(run(7))


# ---- what can be wrong -----------------------------------------------------------------------------------------------
def test_a_full_disk_is_one_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    connect = database._connect

    def cramped(*args: Any) -> sqlite3.Connection:
        connection = connect(*args)
        connection.execute("PRAGMA max_page_count = 8")
        return connection

    monkeypatch.setattr(database, "_connect", cramped)
    with pytest.warns(UserWarning, match=r"the run is not kept: .*\(database or disk is full\)") as said:
        kept = [number for number in range(100) if database.save(run(number))]
    assert len(said) == 1
    assert 0 < len(kept) < 100
    assert database.load() == tuple(map(run, kept))


@pytest.mark.parametrize("folder", ["a file", "/proc/memplan"])
def test_a_folder_that_cannot_be_made_is_one_warning(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a file").touch()
    monkeypatch.setenv(store.VARIABLE, str(tmp_path / folder / "in it"))
    with pytest.warns(UserWarning, match="the run is not kept") as said:
        kept = [database.save(run()) for _ in range(2)]
    assert (kept, len(said)) == ([False, False], 1)
    assert database.load() == ()


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_read_only_folder_is_read(cache: Path) -> None:
    database.save(run())
    cache.chmod(0o555)
    try:
        assert database.load() == (run(),)
        with pytest.warns(UserWarning, match="the run is not kept"):
            assert not database.save(run())
    finally:
        cache.chmod(0o755)


def test_where_nothing_can_be_written_beside_it_the_file_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    database.save(run())
    before = sorted(database.file().parent.iterdir())
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    assert database.load() == (run(),)
    assert sorted(database.file().parent.iterdir()) == before


def test_a_newer_file_is_left_as_it_is() -> None:
    database.save(run())
    connection = sqlite3.connect(database.file())
    connection.execute(f"PRAGMA user_version = {VERSION + 1}")
    connection.close()
    before = database.file().read_bytes()
    version = f"is of version {VERSION + 1}, and this memplan knows {VERSION}"
    with pytest.warns(UserWarning, match=version) as said:
        found = database.save(run(1)), database.load(), database.load()
    assert found == (False, (), ())
    assert [str(w.message).partition(":")[0] for w in said] == ["the run is not kept", "no measured runs are known"]
    assert database.file().read_bytes() == before


DAMAGES = {
    "something else": lambda data: b"a text that is no database " * 100,
    "cut off": lambda data: data[: len(data) // 2],
    "overwritten": lambda data: data[:2048] + b"\xff" * (len(data) - 2048),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_file_is_one_warning_and_goes_when_forgotten(damage: Any) -> None:
    for number in range(20):
        database.save(run(number))
    database.file().write_bytes(damage(database.file().read_bytes()))
    with pytest.warns(UserWarning, match=r"history\.sqlite cannot be used .* --forget") as said:
        found = [database.load() for _ in range(2)]
    assert (found, len(said)) == ([(), ()], 1)
    assert database.forget()
    assert database.save(run())
    assert database.load() == (run(),)


def test_a_foreign_database_is_not_written_to() -> None:
    database.file().parent.mkdir()
    connection = sqlite3.connect(database.file())
    connection.execute("CREATE TABLE runs (mine)")
    connection.close()
    with pytest.warns(UserWarning, match="table runs already exists"):
        assert not database.save(run())
    connection = sqlite3.connect(database.file())
    assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("runs",)]
    connection.close()
