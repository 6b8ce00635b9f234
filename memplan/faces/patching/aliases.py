"""Names that a script has for components of its pipeline, as in vae = pipe.vae, and for what it makes of them."""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

import libcst as cst

from memplan.faces.patching.find import unmoved
from memplan.faces.patching.reading import Script, root

if TYPE_CHECKING:
    from memplan.faces.patching.homes import Homes

COMPONENT = re.compile(
    r"(.*_)?(adapter|bridge|controlnet|decoder|encoder|embedder|movq|prior|projector|safety_checker|transformer|unet|vae"
    r"|vocoder|vqvae|vqgan)(_\d)?"
)
"""Attributes of pipelines that are components with weights, by how diffusers names them."""


def components(script: Script, homes: "Homes") -> Iterator[tuple[cst.BaseExpression, str]]:
    """What a component is assigned to, and the component's name."""
    for target, given in (pair for node in script.all(cst.Assign) for pair in _pairs(node)):
        name = homes.whole(given)
        if COMPONENT.fullmatch(name) and root(target) is not None:
            yield target, name


def check_only(script: Script, homes: "Homes", target: cst.BaseExpression, name: str) -> None:
    """Raises NotPatched where the name `target` of the component `name` is that of something else, too."""
    if not isinstance(target, cst.Name):
        return
    for one in script.assignments(target, target.value):
        assign = script.within(one.node, cst.Assign)
        pairs = _pairs(assign) if isinstance(assign, cst.Assign) else ()
        given = next((unmoved(value) for to, value in pairs if to is one.node), None)
        made = given.args[0].value if isinstance(given, cst.Call) and given.args else given
        if made is None or name not in (homes.part(made), homes.loaded(given)):
            cure = f"give that a name of its own, or write out pipe.{name}"
            raise script.refuse(one.node, f"{target.value} is {name} of the pipeline, and something else here", cure)


def check_left(script: Script, small: cst.Assign, call: cst.Call) -> None:
    """Raises NotPatched for a statement that is to go and gives a name its only value."""
    for name in (target.target for target in small.targets):
        if isinstance(name, cst.Name) and len(script.assignments(name, name.value)) == 1:
            of = script.text(call.args[0].value if call.args else unmoved(small.value))
            what = f"{name.value} is made here, by what the plan decides about"
            raise script.refuse(call, what, f"give it back to where it is from, as in {of} = {script.text(call)}")


def _pairs(assign: cst.Assign) -> Iterator[tuple[cst.BaseExpression, cst.BaseExpression]]:
    """Each target of an assignment, and what it is assigned; of tuples each element, where both sides have as many."""
    for target in (one.target for one in assign.targets):
        both = target, assign.value
        if all(isinstance(side, cst.Tuple) for side in both):
            left, right = (side.elements for side in both if isinstance(side, cst.Tuple))
            if len(left) == len(right):
                yield from ((to.value, given.value) for to, given in zip(left, right, strict=True))
        else:
            yield both
