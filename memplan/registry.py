"""Finds the installed strategies, ours and every plug-in's alike, and reads the settings that people type."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, Field, fields
from importlib.metadata import entry_points
from typing import Any, get_args, get_origin, get_type_hints
from urllib.parse import unquote

from memplan.errors import BadInput, MemplanError, did_you_mean
from memplan.facts import Component, Facts
from memplan.strategy import SEPARATOR, Strategy, Switch

DOOR = "memplan.strategies"
"""The entry-point group. An entry point loads a strategy class, or a tuple of them."""

JOIN = " + "
"""Stands between the techniques of a plan."""
_JOINED = re.compile(r"\s\+")
"""The same as people paste it, over several lines. Settings have no spaces, but may have a "+"."""
EVERYTHING = "everything on the GPU"
"""The plan of no strategy, as reports write it and people may type it."""
ELSEWHERE = {
    "gguf": "a GGUF file stands beside the model, as in flux.1-dev,transformer=FILE.gguf",
    "bf16": "the dtype that a pipeline is loaded in is dtype=bfloat16, or --dtype bfloat16",
    "fp16": "the dtype that a pipeline is loaded in is dtype=float16, or --dtype float16",
}
"""What people type as a strategy and memplan takes elsewhere."""
WORDS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def strategies() -> tuple[type[Strategy], ...]:
    """Every installed strategy class, memplan's own first.

    Raises MemplanError where none is installed, one cannot be loaded, or two have the same name.
    """
    doors = sorted(entry_points(group=DOOR), key=lambda door: (door.name != "memplan", door.name))
    found: dict[str, type[Strategy]] = {}
    for cls in (cls for door in doors for cls in _load(door)):
        other = found.setdefault(cls.name, cls)
        if other is not cls:
            raise MemplanError(f"{_full(other)} and {_full(cls)} are both named {cls.name}: uninstall one of them")
    if not found:
        raise MemplanError('no strategy is installed; in a checkout of memplan, run "pip install -e ."')
    return tuple(found.values())


def _load(door: Any) -> tuple[type[Strategy], ...]:
    try:
        loaded = door.load()
    except Exception as error:
        raise MemplanError(f"the plug-in {door.value} cannot be loaded ({error}): mend or uninstall it") from error
    classes = loaded if isinstance(loaded, tuple) else (loaded,)
    for cls in classes:
        if not (isinstance(cls, type) and issubclass(cls, Strategy)):
            raise MemplanError(f"the plug-in {door.value} is not a strategy, nor a tuple of strategies")
    return classes


def _full(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


# ---- what people type -----------------------------------------------------------------------------------------------
def parse(text: str, facts: Facts) -> Strategy:
    """The strategy that `text` names: "name", "name:component" or "name:component,setting=value,…".

    What is left out is read from `facts`: the component is the denoiser unless the strategy has one of its own.
    Raises BadInput, which lists what there is.
    """
    cls, settings = _as_given(text)
    settings = {**_assumed(cls, settings.get("component"), facts), **settings}
    for field in _fields(cls):
        if field.name not in settings:
            raise BadInput(
                f"the setting {field.name} must be given, as in {_example(cls, field.name, settings, facts)}"
            )
    for component in (settings.get("component"), *settings.get("components", ())):
        if component is not None:
            _check(component, [c.name for c in facts.model.components], "component", facts.model.name)
    return cls(**settings)


def _example(cls: type[Strategy], setting: str, settings: Mapping[str, Any], facts: Facts) -> str:
    """How it is typed with `setting`: a value that is weighed for this component, where there is one."""
    component = settings.get("component")
    weighed = (one for one in cls.variants(facts) if getattr(one, "component", None) == component)
    found = next((str(getattr(one, setting)) for one in weighed), "…")
    return f"{cls.name}:{','.join(filter(None, (component, f'{setting}={found}')))}"


def _as_given(text: str) -> tuple[type[Strategy], dict[str, Any]]:
    """The strategy class that `text` names, and the settings given there."""
    name, _, rest = (part.strip() for part in text.partition(":"))
    cls = _named(name)
    settings: dict[str, Any] = {}
    for part in filter(None, (part.strip() for part in rest.split(","))):
        key, equals, value = (word.strip() for word in part.partition("="))
        if not equals:
            key, value = "component", key
        settings[key] = _value(cls, key, value)
    return cls, settings


def switches(plan: Iterable[str | Strategy]) -> dict[str, Switch]:
    """The ways to call components that a dry run has to follow for the strategies of `plan`. Raises BadInput."""
    found: dict[str, Switch] = {}
    for part in plan:
        named = [_as_given(t) for w in _parts(part) for t in _by_component(w)] if isinstance(part, str) else [_of(part)]
        for cls, settings in named:
            found |= cls.switches(settings)
    return found


def _of(strategy: Strategy) -> tuple[type[Strategy], dict[str, Any]]:
    return type(strategy), {field.name: getattr(strategy, field.name) for field in _fields(type(strategy))}


def typed(strategy: Strategy, facts: Facts) -> str:
    """`parse` undone: name, component, and every setting that `parse` would not find by itself."""
    return strategy.typed(given(strategy, facts))


def given(strategy: Strategy, facts: Facts) -> dict[str, Any]:
    """The settings of `strategy`, its component among them, that are neither defaults nor read from `facts`."""
    cls, every = type(strategy), {field.name: getattr(strategy, field.name) for field in _fields(type(strategy))}
    assumed = _assumed(cls, every.get("component"), facts)
    return {name: value for name, value in every.items() if name not in assumed or assumed[name] != value}


def _assumed(cls: type[Strategy], component: str | None, facts: Facts) -> dict[str, Any]:
    """The settings that nobody needs to give, where `component` is given: defaults, and what is read from `facts`."""
    found = {f.name: f.default_factory() for f in _fields(cls) if f.default_factory is not MISSING}
    found |= {f.name: f.default for f in _fields(cls) if f.default is not MISSING}
    names, every = {f.name for f in _fields(cls)}, {part.name: part for part in facts.model.components}
    if "components" in names:
        found["components"] = cls.takes(facts)
    if "component" in names - found.keys() and component is None:
        found["component"] = denoiser(facts).name
    named = component or found.get("component")
    return found | dict(cls.measured(every[named]) if named in every else {})


def parse_plan(text: str, facts: Facts) -> tuple[Strategy, ...]:
    """The strategies of a plan as people type it: parts as for `parse`, joined by " + ", perhaps over several lines.

    A part that names several components, as "name:one,two,setting=value", is a strategy for each. "everything on the
    GPU" is the plan of none, and so is an empty text. Raises BadInput.
    """
    return tuple(parse(part, facts) for whole in _parts(text) for part in _by_component(whole))


def _parts(text: str) -> list[str]:
    plan = " ".join(text.split())
    parts = [] if plan in ("", EVERYTHING) else _JOINED.split(f" {plan}")
    if not all(map(str.strip, parts)):
        raise BadInput(f'a technique is missing beside a "+" of the plan {plan}')
    return parts


def _by_component(text: str) -> list[str]:
    name, colon, rest = text.partition(":")
    words = [word for word in rest.split(",") if word.strip()]
    settings = [word for word in words if "=" in word]
    components = [word for word in words if "=" not in word]
    return [f"{name}:{','.join((component, *settings))}" for component in components] or [f"{name}{colon}{rest}"]


def check_names(text: str) -> None:
    """Raises BadInput for a plan that names a strategy which is not installed. It needs no facts."""
    for part in _parts(text):
        _named(part.partition(":")[0].strip())


def _named(name: str) -> type[Strategy]:
    known = {cls.name: cls for cls in strategies()}
    word = name.lower().replace("-", "_")
    meant = [cls.name for cls in known.values() if word in cls.known_as]
    if name not in known and (meant or word in ELSEWHERE):
        raise BadInput(f"memplan has no strategy {name!r}: {ELSEWHERE.get(word) or 'say ' + ' or '.join(meant)}")
    first, comma, settings = name.partition(",")
    if comma and first.strip() in known:
        raise BadInput(f"settings stand behind a colon: say {first.strip()}:{settings.strip()}")
    _check(name, list(known), "strategy", "memplan")
    return known[name]


def _check(word: str, known: list[str], kind: str, owner: str) -> None:
    if word not in known:
        raise BadInput(f"{owner} has no {kind} {word!r}.{did_you_mean(word, known)} It has: {', '.join(known)}")


def _fields(cls: type[Strategy]) -> tuple[Field[Any], ...]:
    return fields(cls)  # type: ignore[arg-type]


def _value(cls: type[Strategy], key: str, text: str) -> Any:
    kinds = {field.name: get_type_hints(cls)[field.name] for field in _fields(cls)}
    if key not in kinds:
        listed = ", ".join(f"{name} ({_kind(kind)})" for name, kind in kinds.items())
        raise BadInput(f"{cls.name} has no setting {key!r}.{did_you_mean(key, kinds)} It has: {listed or 'none'}")
    for kind in get_args(kinds[key]) if type(None) in get_args(kinds[key]) else (kinds[key],):
        try:
            return _read(kind, text)
        except (ValueError, KeyError):
            continue
    raise BadInput(f"{cls.name}: {key}={text!r} is not {_kind(kinds[key])}")


def _read(kind: Any, text: str) -> Any:
    """`text` as a bool, int, float, None, tuple ("a/b") or str. Raises ValueError or KeyError."""
    if kind is bool:
        return WORDS[text.lower()]
    if kind is type(None):
        return {"none": None}[text.lower()]
    if kind in (int, float):
        return kind(text)
    if get_origin(kind) is tuple:
        return tuple(_read(get_args(kind)[0], part) for part in map(str.strip, text.split(SEPARATOR)) if part)
    return unquote(text)


def _kind(kind: Any) -> str:
    return kind.__name__ if isinstance(kind, type) and not get_args(kind) else str(kind)


def denoiser(facts: Facts) -> Component:
    """The largest diffusers component that is called as forward(), as VAEs are not.

    Raises BadInput where the pipeline has none.
    """
    called = {call.component for call in facts.trace.calls if call.method == "forward"}
    candidates = [c for c in facts.model.components if c.library == "diffusers" and c.name in called]
    if not candidates:
        raise BadInput(f"{facts.model.name} has no denoiser; name a component, as in group_offload:component")
    return max(candidates, key=lambda component: component.size)
