"""One file per technique. Add yours here: one import, one word in the list."""

from memplan.strategy import Strategy

from .attention_backend import AttentionBackend as AttentionBackend
from .attention_slicing import AttentionSlicing as AttentionSlicing
from .batched_guidance import BatchedGuidance as BatchedGuidance
from .bnb_4bit import Bnb4bit as Bnb4bit
from .bnb_8bit import Bnb8bit as Bnb8bit
from .cfg_zero_star import CfgZeroStar as CfgZeroStar
from .channels_last import ChannelsLast as ChannelsLast
from .compile import Compile as Compile
from .compute_dtype import ComputeDtype as ComputeDtype
from .differentiable_sampling import DifferentiableSampling as DifferentiableSampling
from .faster_cache import FasterCache as FasterCache
from .first_block_cache import FirstBlockCache as FirstBlockCache
from .fp8_dynamic import Fp8Dynamic as Fp8Dynamic
from .fp8_weight_only import Fp8WeightOnly as Fp8WeightOnly
from .gradient_checkpointing import GradientCheckpointing as GradientCheckpointing
from .group_offload import GroupOffload as GroupOffload
from .int4_weight_only import Int4WeightOnly as Int4WeightOnly
from .int8_dynamic import Int8Dynamic as Int8Dynamic
from .int8_weight_only import Int8WeightOnly as Int8WeightOnly
from .layerwise_casting import LayerwiseCasting as LayerwiseCasting
from .magcache import MagCache as MagCache
from .model_offload import ModelOffload as ModelOffload
from .modelopt import ModelOpt as ModelOpt
from .on_cpu import OnCpu as OnCpu
from .on_demand import OnDemand as OnDemand
from .on_gpu import OnGpu as OnGpu
from .partial_residency import PartialResidency as PartialResidency
from .prompt_reuse import PromptReuse as PromptReuse
from .pyramid_attention_broadcast import PyramidAttentionBroadcast as PyramidAttentionBroadcast
from .quanto import Quanto as Quanto
from .sequential_offload import SequentialOffload as SequentialOffload
from .set_aside import SetAside as SetAside
from .split_guidance import SplitGuidance as SplitGuidance
from .taylorseer import TaylorSeer as TaylorSeer
from .vae_frame_batching import VaeFrameBatching as VaeFrameBatching
from .vae_slicing import VaeSlicing as VaeSlicing
from .vae_tiling import VaeTiling as VaeTiling

STRATEGIES: tuple[type[Strategy], ...] = (
    OnGpu,
    OnCpu,
    ModelOffload,
    OnDemand,
    SetAside,
    GroupOffload,
    PartialResidency,
    SequentialOffload,
    LayerwiseCasting,
    ComputeDtype,
    Int8WeightOnly,
    Int8Dynamic,
    Fp8WeightOnly,
    Fp8Dynamic,
    Quanto,
    ModelOpt,
    Bnb8bit,
    Bnb4bit,
    Int4WeightOnly,
    VaeTiling,
    VaeFrameBatching,
    VaeSlicing,
    AttentionSlicing,
    AttentionBackend,
    SplitGuidance,
    BatchedGuidance,
    CfgZeroStar,
    ChannelsLast,
    FirstBlockCache,
    MagCache,
    TaylorSeer,
    PyramidAttentionBroadcast,
    FasterCache,
    Compile,
    PromptReuse,
    GradientCheckpointing,
    DifferentiableSampling,
)
