"""Prompts that come again are not encoded again."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from memplan.errors import BadInput
from memplan.facts import REUSED, Facts
from memplan.names import ENCODE_PROMPT
from memplan.run import Run
from memplan.strategy import Decision, Seat, Strategy, Undo

from .live.way_back import attributes
from .rules.refusals import willing


@dataclass(frozen=True)
class PromptReuse(Strategy):
    """What encode_prompt() returns is kept, so that a call with the same prompt runs no text encoder.

    Exact. The last `kept` results stay in host memory, by the arguments of encode_prompt(), the config and the settings
    of the pipeline, and the state of its tokenizers and of what encodes: seeds, steps and sizes may change. Text
    encoders that are off the device until they are called stay off: beside model_offload or on_demand a repeated
    prompt moves none of them.

    Seconds and traffic are those of a call with a prompt that is kept; the first with each prompt takes as much longer
    as is shown beside them. Memory has to suffice for that one, so no peak falls.

    Traps: so it is only for those who know that prompts come again, and never picked by itself. A LoRA that is loaded,
    set, fused or unloaded is noticed, and so is a weight that is written. What is written through .data is noticed by
    64 elements of each weight, evenly spread: undo first to change single rows so, or what sequential_offload holds.
    Text encoders whose weights were made in inference mode run each time. Pipelines that encode pictures with their
    words are refused.
    """

    components: tuple[str, ...] = ()
    kept: int = 16

    name: ClassVar[str] = "prompt_reuse"
    known_as: ClassVar[tuple[str, ...]] = ("prompt_cache", "cache_prompt", "embedding_cache")
    opt_in: ClassVar[str] = "whether a prompt comes again is known to the caller alone"

    @property
    def seats(self) -> frozenset[Seat]:
        """Whether these text encoders run for a prompt that is known."""
        return frozenset(Seat(Decision.REUSE, component) for component in self.components)

    @classmethod
    def takes(cls, facts: Facts) -> tuple[str, ...]:
        """What is called within encode_prompt(); all where nothing is, to be refused."""
        return facts.trace.prompted or super().takes(facts)

    @classmethod
    def variants(cls, facts: Facts) -> Iterator[Self]:
        """One, for pipelines that can."""
        yield from willing([cls(cls.takes(facts))], facts)

    def refuses(self, run: Run) -> str | None:
        """Refuses pipelines that encode no prompt by itself, and calls that are given its embeddings."""
        model, trace = run.facts.model, run.facts.trace
        if model.lack(self.name):
            return model.lack(self.name)
        if not trace.prompted:
            return f"this call runs no component in encode_prompt() of {model.class_name}, so nothing would be saved"
        if set(self.components) != set(trace.prompted):
            return f"{self.name} takes all that encode_prompt() calls: {', '.join(trace.prompted)}"
        return None if self.kept > 0 else f"kept is 1 or more, not {self.kept}: it counts results of encode_prompt()"

    def redraw(self, run: Run) -> Run:
        """Calls within encode_prompt() are made for new prompts alone."""
        for component in self.components:
            run = run.vary(component, f"{REUSED}:{self.kept}")
        return run

    def apply(self, pipe: Any, device: str) -> Undo:
        """Puts the store in front of encode_prompt(). Raises BadInput for a pipeline without one."""
        from .live.prompts import Prompts

        encode, undo = getattr(pipe, ENCODE_PROMPT, None), attributes(pipe, ENCODE_PROMPT)
        if not callable(encode):
            raise BadInput(f"{type(pipe).__name__} has no {ENCODE_PROMPT}() whose results could be kept")
        vars(pipe)[ENCODE_PROMPT] = Prompts(pipe, encode, self.kept)
        return undo

    def code(self, device: str = "cuda") -> tuple[str, ...]:
        """A call of memplan's own, as no library has one."""
        kept = "" if self.kept == type(self).kept else f"kept={self.kept}"
        return ("from memplan.strategies import PromptReuse", f'PromptReuse({kept}).apply(pipe, "{device}")')
