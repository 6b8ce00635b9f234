"""The cache gives back what it was given, and never stands in the way."""

import gzip
import json
import multiprocessing
import os
import shutil
import warnings
from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memplan.faces import api, measuring, store
from memplan.faces import keys as named
from memplan.facts import Call, Model, Ops, Segment, Step, Trace
from tests.faces import small

FACTS = small.facts()
NAME = "small"
key = named.key
Damage = Callable[[bytes], bytes]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of this test's own."""
    monkeypatch.setenv(store.VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


def plain(value: Any) -> Any:
    """A fact with all its fields as values, for facts compare by identity."""
    if is_dataclass(value):
        return type(value).__name__, {f.name: plain(getattr(value, f.name)) for f in fields(value)}
    return tuple(plain(v) for v in value) if isinstance(value, tuple) else value


def same(known: tuple[Model, Trace] | None) -> bool:
    """Whether these are the small pipeline's facts."""
    return known is not None and plain(known) == plain((FACTS.model, FACTS.trace))


# ---- there and back --------------------------------------------------------------------------------------------------
def test_round_trip() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert store.load(NAME) is None
        store.save(NAME, FACTS.model, FACTS.trace)
        assert same(store.load(NAME))


def test_the_same_facts_make_the_same_file(cache: Path) -> None:
    store.save("one", FACTS.model, FACTS.trace)
    store.save("two", FACTS.model, FACTS.trace)
    one, two = (cache / f"{name}.json.gz" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()
    assert len(list(cache.iterdir())) == 2


def test_a_file_of_before_is_replaced() -> None:
    store.save(NAME, FACTS.model, replace(FACTS.trace, device="cpu"))
    store.save(NAME, FACTS.model, FACTS.trace)
    assert same(store.load(NAME))


whole = st.integers(0, 2**53)
few = st.lists(st.integers(0, 9), max_size=3).map(tuple)
ops = st.builds(Ops, st.text(max_size=5), st.text(max_size=5), whole, whole, whole)
segments = st.builds(Segment, few, few, whole, whole, whole, st.lists(ops, max_size=2).map(tuple), whole)
calls = st.builds(
    Call,
    component=st.text(max_size=5),
    method=st.text(max_size=5),
    phase=st.text(max_size=5),
    base=whole,
    modules=st.lists(st.text(max_size=5), max_size=3).map(tuple),
    ops=st.lists(st.text(max_size=5), max_size=3).map(tuple),
    segments=st.lists(segments, max_size=3).map(tuple),
    variant=st.lists(st.text(max_size=5), max_size=3).map(tuple),
)
traces = st.builds(
    Trace,
    device=st.sampled_from(["cuda", "cpu"]),
    calls=st.lists(calls, max_size=3).map(tuple),
    timeline=st.lists(st.builds(Step, whole, whole), max_size=3).map(tuple),
    alternatives=st.lists(calls, max_size=2).map(tuple),
    arguments=st.lists(st.tuples(st.text(max_size=5), st.text(max_size=5)), max_size=3).map(tuple),
    assumptions=st.lists(st.text(max_size=5), max_size=3).map(tuple),
    failed=st.lists(st.tuples(*[st.text(max_size=5)] * 3), max_size=2).map(tuple),
)


@given(traces)
def test_any_trace_comes_back_as_it_was(trace: Trace) -> None:
    assert plain(store.decode(Trace, json.loads(json.dumps(store.encode(trace))))) == plain(trace)


# ---- what can be wrong with a file -----------------------------------------------------------------------------------
def document(change: Callable[[Any], Any]) -> Damage:
    """Damage done to the JSON inside a file."""
    return lambda data: gzip.compress(json.dumps(change(json.loads(gzip.decompress(data)))).encode())


def a_word_for_a_module(facts: Any) -> Any:
    """The first module that a segment enters is a word in place of a number."""
    _, calls, *_ = facts["trace"]
    calls[0][6][0][0] = ["many"]
    return facts


DAMAGES: dict[str, Damage] = {
    "empty": lambda data: b"",
    "cut off": lambda data: data[: len(data) // 2],
    "bits turned": lambda data: data[:40] + bytes([data[40] ^ 255]) + data[41:],
    "not gzip": lambda data: b'{"model": []}',
    "not json": lambda data: gzip.compress(b"{"),
    "not utf-8": lambda data: gzip.compress(b'"\xff"'),
    "json of something else": lambda data: gzip.compress(b"[1, 2, 3]"),
    "one half": document(lambda facts: {"model": facts["model"]}),
    "a field too few": document(lambda facts: facts | {"model": facts["model"][:-1]}),
    "a field too many": document(lambda facts: facts | {"trace": [*facts["trace"], 1]}),
    "another type": document(lambda facts: facts | {"model": [7, *facts["model"][1:]]}),
    "nothing where there is something": document(lambda facts: facts | {"trace": None}),
    "a word among numbers": document(a_word_for_a_module),
    "a number where there is a list": document(
        lambda facts: facts | {"trace": [*facts["trace"][:1], 5, *facts["trace"][2:]]}
    ),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_file_is_reported_and_made_anew(cache: Path, damage: Damage) -> None:
    store.save(NAME, FACTS.model, FACTS.trace)
    path = cache / f"{NAME}.json.gz"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.warns(UserWarning, match=r"cannot be read .*; it is made anew") as said:
        assert store.load(NAME) is None
    assert str(path) in str(said[0].message)
    store.save(NAME, FACTS.model, FACTS.trace)
    assert same(store.load(NAME))


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        (tuple[int, ...], ["many"]),
        (tuple[int, ...], [1, 2.0]),
        (tuple[int, ...], [True]),
        (tuple[int, ...], "12"),
        (tuple[str, ...], [1]),
        (tuple[str, str], ["one"]),
        (tuple[str, str], ["one", 2]),
        (tuple[tuple[str, str], ...], [["one", 2]]),
        (int, True),
        (int | None, "1"),
    ],
)
def test_what_has_another_type_is_refused(kind: Any, data: Any) -> None:
    with pytest.raises(ValueError, match=r"is not|shorter|longer"):
        store.decode(kind, data)


def test_facts_are_measured_anew_where_the_file_is_damaged(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[Any] = []

    def measure(*given: Any, **also: Any) -> tuple[Model, Trace]:
        measured.append(given)
        return FACTS.model, FACTS.trace

    monkeypatch.setattr(measuring, "_measured", measure)
    target = api.Target(vram=8, ram=32)
    for _ in range(2):
        found = api.facts("flux.1-dev", {}, target=target)
        assert same((found.model, found.trace))
    assert len(measured) == 1
    (path,) = cache.iterdir()
    path.write_bytes(b"no facts")
    with pytest.warns(UserWarning, match="made anew"):
        api.facts("flux.1-dev", {}, target=target)
    assert len(measured) == 2
    api.facts("flux.1-dev", {}, target=target)
    assert len(measured) == 2


# ---- where nothing can be written ------------------------------------------------------------------------------------
def test_without_a_place_to_write_it_goes_on(cache: Path) -> None:
    cache.write_text("a file where the folder should be")  # a mode would not stop an administrator
    with pytest.warns(UserWarning, match="memplan goes on without its cache: "):
        store.save(NAME, FACTS.model, FACTS.trace)
    with pytest.warns(UserWarning, match="cannot be read"):
        assert store.load(NAME) is None


def test_a_disk_that_fills_up_leaves_nothing_behind(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, data: bytes) -> None:
        path.open("wb").close()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.warns(UserWarning, match="No space left"):
        store.save(NAME, FACTS.model, FACTS.trace)
    assert list(cache.iterdir()) == []


def write_often(device: str, times: int) -> None:
    """Keep the small facts again and again."""
    for _ in range(times):
        store.save(NAME, FACTS.model, replace(FACTS.trace, device=device))


def test_two_writers_leave_one_readable_file(cache: Path) -> None:
    fork = multiprocessing.get_context("fork")
    writers = [fork.Process(target=write_often, args=(device, 100)) for device in ("cpu", "cuda")]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        assert not (cache / f"{NAME}.json.gz").exists() or store.load(NAME) is not None
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert [path.name for path in cache.iterdir()] == [f"{NAME}.json.gz"]
    assert store.load(NAME) is not None


# ---- what a key depends on -------------------------------------------------------------------------------------------
def test_a_key_tells_calls_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = [
        key("sdxl", {}, None),
        key("sd1.5", {}, None),
        key("sdxl", {"height": 512}, None),
        key("sdxl", {"height": 768}, None),
        key("sdxl", {"width": 512}, None),
        key("sdxl", {}, "float16"),
        key("sdxl", {}, None, (7, 0)),
    ]
    monkeypatch.setattr(named, "version", lambda library: "99")
    keys.append(key("sdxl", {}, None))
    monkeypatch.setattr(named, "KERNELS", "cpu")
    keys.append(key("sdxl", {}, None))
    monkeypatch.setattr(store, "schema", lambda kind: "another")
    keys.append(key("sdxl", {}, None))
    assert None not in keys
    assert len(set(keys)) == len(keys)


def test_a_key_does_not_depend_on_the_order_of_arguments() -> None:
    assert key("sdxl", {"height": 512, "width": 768}, None) == key("sdxl", {"width": 768, "height": 512}, None)


def test_a_key_follows_the_contents_of_a_folder(tmp_path: Path) -> None:
    keys = [key(tmp_path, {}, None)]
    config = tmp_path / "vae" / "config.json"
    config.parent.mkdir()
    for text in ("{}", "{ }"):
        config.write_text(text)
        keys.append(key(tmp_path, {}, None))
    assert len(set(keys)) == 3
    assert key(tmp_path, {}, None) == key(str(tmp_path), {}, None) == keys[-1]


def test_a_key_follows_the_picture_that_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    keys = [key("sdxl", {"image": "p.png"}, None)]
    for content in (b"small", b"larger"):
        Path("p.png").write_bytes(content)
        keys.append(key("sdxl", {"image": "p.png"}, None))
    os.utime("p.png", (1, 1))
    keys.append(key("sdxl", {"image": "p.png"}, None))
    assert len(set(keys)) == 4
    assert key("sdxl", {"prompt": "~nobody " * 999}, None) is not None


@pytest.mark.parametrize(
    "changed", ["allocator.py", "facts/trace.py", "faces/measuring.py", "probes/doors.py", "catalogue/components.json"]
)
def test_a_key_follows_what_decides_the_facts(changed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(Path(named.__file__).parent.parent, tmp_path / "memplan")
    monkeypatch.setattr(named, "__file__", str(tmp_path / "memplan" / "faces" / "keys.py"))
    before = key("sdxl", {}, None)
    assert key("sdxl", {}, None) == before
    with (tmp_path / "memplan" / changed).open("a") as file:
        file.write("\n")
    assert key("sdxl", {}, None) != before


@pytest.mark.parametrize("call", [{"prompt_embeds": object()}, {"sigmas": [1.0, 0.5]}], ids=["tensor", "list"])
def test_a_call_that_cannot_be_named_is_not_kept(call: dict[str, Any]) -> None:
    assert key("sdxl", call, None) is None
