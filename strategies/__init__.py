"""One file per technique. Add yours here: one import, one word in the list."""

from memplan.strategy import Strategy

from .attention_slicing import AttentionSlicing as AttentionSlicing
from .group_offload import GroupOffload as GroupOffload
from .layerwise_casting import LayerwiseCasting as LayerwiseCasting
from .model_offload import ModelOffload as ModelOffload
from .on_cpu import OnCpu as OnCpu
from .on_gpu import OnGpu as OnGpu
from .sequential_offload import SequentialOffload as SequentialOffload
from .set_aside import SetAside as SetAside
from .vae_slicing import VaeSlicing as VaeSlicing
from .vae_tiling import VaeTiling as VaeTiling

STRATEGIES: tuple[type[Strategy], ...] = (
    OnGpu,
    OnCpu,
    ModelOffload,
    SetAside,
    GroupOffload,
    SequentialOffload,
    LayerwiseCasting,
    VaeTiling,
    VaeSlicing,
    AttentionSlicing,
)
