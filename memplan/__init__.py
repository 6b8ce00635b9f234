"""A memory-strategy planner and auto-configurator for PyTorch and diffusers pipelines.

Importing it loads neither torch nor diffusers; the verbs load what they need.
"""

import importlib as _importlib
import typing as _typing

if _typing.TYPE_CHECKING:
    from memplan.applier import Applied as Applied
    from memplan.errors import ApplyFailed as ApplyFailed
    from memplan.errors import BadInput as BadInput
    from memplan.errors import LoadFailed as LoadFailed
    from memplan.errors import MemplanError as MemplanError
    from memplan.errors import NothingFits as NothingFits
    from memplan.errors import Unsupported as Unsupported
    from memplan.faces.api import Target as Target
    from memplan.faces.api import price as price
    from memplan.faces.api import probe as probe
    from memplan.faces.api import recommend as recommend
    from memplan.faces.calibrate import calibrate as calibrate
    from memplan.faces.compare.compare import compare as compare
    from memplan.faces.compare.comparison import Comparison as Comparison
    from memplan.faces.live import applied as applied
    from memplan.faces.live import auto_optimize as auto_optimize
    from memplan.faces.load import load as load
    from memplan.faces.oom.guard import guard as guard
    from memplan.faces.oom.hooks import install as install
    from memplan.faces.reload import reload as reload
    from memplan.faces.sampling.differentiable import differentiable as differentiable
    from memplan.faces.verify import verify as verify
    from memplan.facts import Differentiable as Differentiable
    from memplan.facts import Facts as Facts
    from memplan.facts import Machine as Machine
    from memplan.facts import Model as Model
    from memplan.facts import Rates as Rates
    from memplan.facts import Training as Training
    from memplan.planner import Plan as Plan
    from memplan.planner import Recommendation as Recommendation
    from memplan.planner import Saved as Saved
    from memplan.strategy import Strategy as Strategy

_HOMES = {
    "memplan.applier": ("Applied",),
    "memplan.errors": ("ApplyFailed", "BadInput", "LoadFailed", "MemplanError", "NothingFits", "Unsupported"),
    "memplan.faces.api": ("Target", "price", "probe", "recommend"),
    "memplan.faces.calibrate": ("calibrate",),
    "memplan.faces.compare.compare": ("compare",),
    "memplan.faces.compare.comparison": ("Comparison",),
    "memplan.faces.live": ("applied", "auto_optimize"),
    "memplan.faces.load": ("load",),
    "memplan.faces.oom.guard": ("guard",),
    "memplan.faces.oom.hooks": ("install",),
    "memplan.faces.reload": ("reload",),
    "memplan.faces.sampling.differentiable": ("differentiable",),
    "memplan.faces.verify": ("verify",),
    "memplan.facts": ("Differentiable", "Facts", "Machine", "Model", "Rates", "Training"),
    "memplan.planner": ("Plan", "Recommendation", "Saved"),
    "memplan.strategy": ("Strategy",),
}

__all__ = [
    "Applied",
    "ApplyFailed",
    "BadInput",
    "Comparison",
    "Differentiable",
    "Facts",
    "LoadFailed",
    "Machine",
    "MemplanError",
    "Model",
    "NothingFits",
    "Plan",
    "Rates",
    "Recommendation",
    "Saved",
    "Strategy",
    "Target",
    "Training",
    "Unsupported",
    "applied",
    "auto_optimize",
    "calibrate",
    "compare",
    "differentiable",
    "guard",
    "install",
    "load",
    "price",
    "probe",
    "recommend",
    "reload",
    "verify",
]


def __getattr__(name: str) -> _typing.Any:
    """A public name, from the module that defines it."""
    for home, names in _HOMES.items():
        if name in names:
            return getattr(_importlib.import_module(home), name)
    raise AttributeError(f"module 'memplan' has no attribute {name!r}")


def __dir__() -> list[str]:
    """The public names."""
    return sorted(__all__)
