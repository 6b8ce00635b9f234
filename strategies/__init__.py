"""One file per technique. Add yours here: one import, one word in the list."""

from memplan.strategy import Strategy

from .group_offload import GroupOffload as GroupOffload
from .layerwise_casting import LayerwiseCasting as LayerwiseCasting
from .model_offload import ModelOffload as ModelOffload
from .on_gpu import OnGpu as OnGpu
from .vae_tiling import VaeTiling as VaeTiling

STRATEGIES: tuple[type[Strategy], ...] = (OnGpu, ModelOffload, GroupOffload, LayerwiseCasting, VaeTiling)
