"""What was measured: the machine, the model and the dry run of one call. Frozen; nothing here is guessed.

Every size is in bytes, every rate in units per second, every path is a dotted module path inside its component.
The large facts compare by identity, so that prices computed from them can be remembered.
"""

from dataclasses import dataclass

from memplan.facts.caching import CacheHooks as CacheHooks
from memplan.facts.caching import Result as Result
from memplan.facts.caching import Turn as Turn
from memplan.facts.calibration import COMPUTE as COMPUTE
from memplan.facts.calibration import CONTEXT as CONTEXT
from memplan.facts.calibration import KINDS as KINDS
from memplan.facts.calibration import LIMITS as LIMITS
from memplan.facts.calibration import ON_HOST as ON_HOST
from memplan.facts.calibration import PINNED_BLOCK as PINNED_BLOCK
from memplan.facts.calibration import WORKSPACE as WORKSPACE
from memplan.facts.calibration import Calibration as Calibration
from memplan.facts.calibration import Reading as Reading
from memplan.facts.calibration import Setting as Setting
from memplan.facts.caveats import caveats
from memplan.facts.differentiable import Differentiable as Differentiable
from memplan.facts.differentiable import Passes as Passes
from memplan.facts.limits import LOSSES as LOSSES
from memplan.facts.limits import NO_LIMITS as NO_LIMITS
from memplan.facts.limits import Limits as Limits
from memplan.facts.machine import ASSUMED_CAPABILITY as ASSUMED_CAPABILITY
from memplan.facts.machine import Gpu as Gpu
from memplan.facts.machine import Host as Host
from memplan.facts.machine import Learned as Learned
from memplan.facts.machine import Machine as Machine
from memplan.facts.model import BY_MODULE as BY_MODULE
from memplan.facts.model import BY_WEIGHT as BY_WEIGHT
from memplan.facts.model import ITEM_SIZE as ITEM_SIZE
from memplan.facts.model import SEQUENTIAL as SEQUENTIAL
from memplan.facts.model import Component as Component
from memplan.facts.model import Group as Group
from memplan.facts.model import Grouping as Grouping
from memplan.facts.model import Model as Model
from memplan.facts.model import Weight as Weight
from memplan.facts.purpose import Purpose as Purpose
from memplan.facts.rates import USUAL as USUAL
from memplan.facts.rates import Rates as Rates
from memplan.facts.schedulers import not_matching_flows as not_matching_flows
from memplan.facts.trace import ATTENTION as ATTENTION
from memplan.facts.trace import BACKEND as BACKEND
from memplan.facts.trace import BATCHED as BATCHED
from memplan.facts.trace import CHANNELS_LAST as CHANNELS_LAST
from memplan.facts.trace import CHECKPOINTED as CHECKPOINTED
from memplan.facts.trace import COMPUTED as COMPUTED
from memplan.facts.trace import CONVOLUTION as CONVOLUTION
from memplan.facts.trace import DENOISING as DENOISING
from memplan.facts.trace import EFFICIENT as EFFICIENT
from memplan.facts.trace import ELEMENTWISE as ELEMENTWISE
from memplan.facts.trace import FREED as FREED
from memplan.facts.trace import HALVED as HALVED
from memplan.facts.trace import IN_SLICES as IN_SLICES
from memplan.facts.trace import MATMUL as MATMUL
from memplan.facts.trace import PAIRED as PAIRED
from memplan.facts.trace import REMADE as REMADE
from memplan.facts.trace import REUSED as REUSED
from memplan.facts.trace import SLICED as SLICED
from memplan.facts.trace import TEXT_ENCODING as TEXT_ENCODING
from memplan.facts.trace import TILED as TILED
from memplan.facts.trace import ZEROED as ZEROED
from memplan.facts.trace import Call as Call
from memplan.facts.trace import Graph as Graph
from memplan.facts.trace import Ops as Ops
from memplan.facts.trace import Segment as Segment
from memplan.facts.trace import Step as Step
from memplan.facts.trace import Trace as Trace
from memplan.facts.training import AUTOCASTS as AUTOCASTS
from memplan.facts.training import FULL as FULL
from memplan.facts.training import KINDS_OF_TRAINING as KINDS_OF_TRAINING
from memplan.facts.training import LORA as LORA
from memplan.facts.training import OPTIMIZERS as OPTIMIZERS
from memplan.facts.training import Trained as Trained
from memplan.facts.training import Training as Training
from memplan.facts.units import GIB as GIB
from memplan.facts.units import MIB as MIB


@dataclass(frozen=True, repr=False)
class Facts:
    """Everything measured before planning. Where `training` is not None the trace is that of such a step.

    Where `differentiable` is not None the trace also has what keeps gradients.
    """

    machine: Machine
    model: Model
    trace: Trace
    training: Training | None = None
    differentiable: Differentiable | None = None

    def __hash__(self) -> int:
        """By what compares by identity: facts are looked up often."""
        return hash((self.model, self.trace))

    def __repr__(self) -> str:
        """The model, the card and the length of the dry run."""
        return f"<Facts of {self.subject}: {self.trace.extent}>"

    @property
    def purpose(self) -> Purpose:
        """What is planned for."""
        if self.training:
            return Purpose.TRAINING
        return Purpose.GRADIENTS if self.differentiable else Purpose.CALLS

    @property
    def subject(self) -> str:
        """Which model on which card."""
        return f"{self.model.name} on {self.machine.gpu.name if self.machine.gpu else 'no GPU'}"

    @property
    def assumptions(self) -> tuple[str, ...]:
        """What had to be assumed, in sentences: in the dry run, and of this machine."""
        return (*self.trace.assumptions, *caveats(self.machine, self.model, self.trace))
