"""What the name and the config of a scheduler say about the model that it was made for."""

from typing import Any

MATCHING = "FlowMatch"
"""What the names of diffusers' schedulers for nothing else than flow matching begin with."""


def not_matching_flows(scheduler: Any) -> str | None:
    """Why a pipeline with `scheduler` does not predict the velocity of a flow, or None where it does."""
    kind, config = type(scheduler).__name__, getattr(scheduler, "config", {})
    if kind.startswith(MATCHING) or config.get("use_flow_sigmas") or config.get("prediction_type") == "flow_prediction":
        return None
    return f"it is for flow matching, and {kind} is no scheduler of that" if scheduler else "it needs a scheduler"
