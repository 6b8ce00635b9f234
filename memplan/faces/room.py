"""Whether a plan still fits when it is about to be used: memory is measured again, as others may have taken some."""

import logging
from dataclasses import replace

from memplan import planner
from memplan.errors import NoRoom
from memplan.faces.api import Target, machine, named
from memplan.facts import Facts, Gpu, Host, Machine
from memplan.planner import Plan
from memplan.registry import strategies

LOG = logging.getLogger("memplan")


def standing(plan: Plan, target: Target, prefer: str | None = None, *, undone: str, force: bool = False) -> Plan:
    """The plan, where it fits what this machine has free now, else the pick of `prefer` for that.

    Raises NoRoom with the figures where no plan fits, or the plan was named, so that `prefer` is None; `undone`
    is the sentence that ends it. With `force` the plan is taken as it is.
    """
    if force:
        for short in plan.shortages:
            LOG.warning("%s needs %s; it is used all the same, as it is forced.", plan, short)
        return plan
    now = at_most(plan.run.facts, machine(Target(reserve=target.reserve, index=target.index)))
    again = named(now, plan.strategies)
    if again.fits and plan.fits:
        return plan
    pick = planner.recommend(now, strategies()).pick(prefer) if prefer is not None and plan.fits else None
    if pick is None:
        missing = ", and ".join(map(str, again.shortages or plan.shortages))
        raise NoRoom(f"the plan, {plan}, needs {missing}. {undone}")
    LOG.warning("%s needs %s by now: %s takes its place.", plan, ", and ".join(map(str, again.shortages)), pick)
    return pick


def at_most(measured: Facts, now: Machine) -> Facts:
    """The same facts with no more free memory than the machine has `now`; one without a card says nothing of cards."""
    then = measured.machine
    gpu, host = _less(then.gpu, now.gpu), _left(then.host, now.host)
    return replace(measured, machine=replace(then, gpu=gpu, host=host))


def _less(then: Gpu | None, now: Gpu | None) -> Gpu | None:
    return then if then is None or now is None else replace(then, free=min(then.free, now.free))


def _left(then: Host, now: Host) -> Host:
    pinnable = [most for most in (then.pinnable, now.pinnable) if most is not None]
    least = min(pinnable) if pinnable else None
    return replace(then, available=min(then.available, now.available), pinnable=least)
