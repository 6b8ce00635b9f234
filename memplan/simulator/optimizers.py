"""What optimizers hold: the states of each trained parameter, and what a step makes besides."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from memplan.facts import Trained
from memplan.facts.training import ADAFACTOR, ADAMW, ADAMW_8BIT, SGD, SGD_MOMENTUM

States = tuple[int, ...]
"""Bytes of each tensor."""
FLOAT = 4
"""Bytes of a float32."""
FEWEST_IN_8_BITS, BLOCK = 4096, 256
"""bitsandbytes keeps the states of parameters with fewer elements in float32 (`min_8bit_size`), and one absmax in
float32 for each block of the others (`Optimizer2State.init_state` of bitsandbytes/optim/optimizer.py)."""
CODES = (256 * FLOAT, 256 * FLOAT)
"""Its two tables of what 8 bits mean, which all parameters share."""
HALF = ("float16", "bfloat16")


@dataclass(frozen=True)
class Optimizer:
    """What one optimizer holds: for each parameter its `states`, `shared` tensors, and in a step `temporaries`.

    `temporaries` are the most bytes that a step on the parameters holds at once besides, on a "cuda" device or "cpu".
    """

    states: Callable[[Trained], States]
    temporaries: Callable[[Sequence[Trained], str], int] = lambda trained, device: 0
    shared: States = ()

    def held(self, trained: Sequence[Trained]) -> States:
        """Bytes of each tensor that stays between two steps."""
        coded = any(weight.numel >= FEWEST_IN_8_BITS for weight in trained)
        return *(nbytes for weight in trained for nbytes in self.states(weight)), *(self.shared if coded else ())


def _adamw(weight: Trained) -> States:
    """Both moments, in the parameter's dtype; the count of steps is in host memory (`_init_group` of optim/adam.py)."""
    return weight.nbytes, weight.nbytes


def _adamw_step(trained: Sequence[Trained], device: str) -> int:
    """On a GPU the roots of all second moments of a dtype at once; on a CPU those of one parameter, twice.

    Source: `_multi_tensor_adam` and `_single_tensor_adam` of torch/optim/adam.py, of which `foreach=None` chooses.
    """
    if device == "cpu":
        return 2 * _largest(trained)
    return max((sum(w.nbytes for w in trained if w.dtype == dtype) for dtype in {w.dtype for w in trained}), default=0)


def _adamw_8bit(weight: Trained) -> States:
    """Both moments in 8 bits and their absmax; those of small parameters in float32."""
    if weight.numel < FEWEST_IN_8_BITS:
        return weight.numel * FLOAT, weight.numel * FLOAT
    absmax = -(-weight.numel // BLOCK) * FLOAT
    return weight.numel, weight.numel, absmax, absmax


def _adafactor(weight: Trained) -> States:
    """Rows and columns of the second moment, that itself of a vector, and the weights' RMS, all in float32.

    Source: `Adafactor.step` of transformers/optimization.py, whose default has no first moment.
    """
    if len(weight.shape) < 2:  # noqa: PLR2004  (a matrix has two dimensions)
        return weight.numel * FLOAT, FLOAT
    *rest, rows, columns = weight.shape
    count = Trained("", tuple(rest)).numel
    return count * rows * FLOAT, count * columns * FLOAT, FLOAT


def _adafactor_step(trained: Sequence[Trained], device: str) -> int:
    """Of one parameter in float32: the update, twice, and factors of it; of halves also the gradient and itself."""
    copies = (2 + 2 * (weight.dtype in HALF) for weight in trained)
    factors = (sum(_adafactor(weight)) if len(weight.shape) > 1 else 0 for weight in trained)
    sizes = (w.numel * FLOAT * n + factor for w, n, factor in zip(trained, copies, factors, strict=True))
    return max(sizes, default=0)


def _momentum(weight: Trained) -> States:
    """One buffer in the parameter's dtype (torch/optim/sgd.py)."""
    return (weight.nbytes,)


def averaging(trained: Sequence[Trained]) -> int:
    """Bytes that the update of averages holds: a difference, twice (`EMAModel.step` of diffusers/training_utils.py)."""
    return 2 * _largest(trained)


def _largest(trained: Sequence[Trained]) -> int:
    return max((weight.nbytes for weight in trained), default=0)


OPTIMIZERS: dict[str, Optimizer] = {
    ADAMW: Optimizer(_adamw, _adamw_step),
    ADAMW_8BIT: Optimizer(_adamw_8bit, shared=CODES),
    ADAFACTOR: Optimizer(_adafactor, _adafactor_step),
    SGD: Optimizer(lambda weight: ()),
    SGD_MOMENTUM: Optimizer(_momentum),
}
"""By the name that people type."""
