"""Why a component cannot take turns on the device with others: the sentences that techniques on demand share."""

from memplan.run import OnHost, Run


def no_turns(run: Run, name: str) -> str | None:
    """The sentence for component `name` where nobody else is called, or nobody would tell where the device is."""
    if all(call.component in ("", name) for call in run.facts.trace.calls):
        return f"{name} is the only component that is called, so it would never leave"
    others = (name for name, placement in run.placements.items() if isinstance(placement, OnHost))
    other = next(others, None)
    if other:
        return f"{other} computes on the CPU, and the pipeline may find nothing on the device: put it into groups"
    return None
