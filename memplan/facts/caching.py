"""What is known for step caches: where the library hooks them, and at which steps a call runs its denoisers."""

from dataclasses import dataclass


@dataclass(frozen=True)
class CacheHooks:
    """The modules that a step cache of the library hooks in a component, in order, as it was read off a copy of it.

    `kinds` says of each what it does there: which attention it is, "factors" or "zeros". `hidden` is the place of the
    hidden states among what the first of them returns, and `ratios` are the magnitude ratios that the library has for
    this model.
    """

    technique: str
    modules: tuple[str, ...]
    kinds: tuple[str, ...] = ()
    hidden: int = 0
    ratios: tuple[float, ...] = ()


@dataclass(frozen=True)
class Turn:
    """One forward of a denoiser: the `context` that the pipeline gives caches, or None, and its step.

    `timestep` is what the pipeline says of itself then, None where it says nothing; `guided` whether it is guided by a
    second prompt.
    """

    component: str
    context: str | None = None
    timestep: float | None = None
    guided: bool = False


@dataclass(frozen=True, slots=True)
class Result:
    """One tensor that a module returned. `storage` is the bytes of the storage that it is a view of.

    Of several views of one storage the first has its bytes, and the others 0.
    """

    shape: tuple[int, ...]
    dtype: str
    storage: int
