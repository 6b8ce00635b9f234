"""Components that share weights are neither moved nor cast one without the other: what it would cost is not known."""

import pytest

from memplan.facts import Facts
from memplan.run import Run
from memplan.strategies import GroupOffload, LayerwiseCasting, ModelOffload, OnGpu, SequentialOffload
from memplan.strategy import Strategy
from tests.measured_facts import facts_of
from tests.pipelines import build


@pytest.fixture(scope="module")
def facts() -> Facts:
    """SDXL whose text encoders have one embedding, which is counted once."""
    pipe = build("sdxl")
    alone = facts_of(pipe).model.size
    first, second = (encoder.get_input_embeddings() for encoder in (pipe.text_encoder, pipe.text_encoder_2))
    assert first.weight.shape == second.weight.shape
    pipe.text_encoder_2.set_input_embeddings(first)
    found = facts_of(pipe)
    assert found.model.size == alone - second.weight.nbytes
    return found


NAMES = ("vae", "text_encoder", "text_encoder_2", "unet")


@pytest.mark.parametrize(
    "strategy",
    [
        *(GroupOffload(name) for name in ("text_encoder", "text_encoder_2")),
        *(LayerwiseCasting(name) for name in ("text_encoder", "text_encoder_2")),
        SequentialOffload(NAMES),
        ModelOffload(NAMES),
    ],
    ids=str,
)
def test_what_would_move_them_is_refused(facts: Facts, strategy: Strategy) -> None:
    sentence = strategy.refuses(Run(facts)) or ""
    assert "shares weights with text_encoder" in sentence
    assert strategy not in list(type(strategy).variants(facts))


@pytest.mark.parametrize("strategy", [GroupOffload("unet"), OnGpu("text_encoder")], ids=str)
def test_the_rest_is_not(facts: Facts, strategy: Strategy) -> None:
    assert strategy in list(type(strategy).variants(facts))
