"""The imports that added lines need, beside those that a script has."""

from collections.abc import Iterable

import libcst as cst
from libcst.metadata import Assignment

from memplan.faces.patching.find import Pipeline
from memplan.faces.patching.reading import Script, root

Import = cst.Import | cst.ImportFrom
LIBRARIES = ("accelerate", "diffusers", "memplan", "optimum", "torchao", "transformers")
"""Those whose names a script imports for nothing but their use."""


def place(script: Script, pipeline: Pipeline) -> cst.CSTNode:
    """The statement after which imports are added: the last of those around the one that the pipeline comes from."""
    name = root(pipeline.load.func)
    assert name is not None
    origins = [one.node for one in script.assignments(name, name.value) if isinstance(one.node, Import)]
    statement = script.statement(origins[0])
    body = list(getattr(script.parent(statement), "body", [statement]))
    at = body.index(statement)
    while at + 1 < len(body) and _imports(body[at + 1]):
        at += 1
    return body[at]


def missing(script: Script, pipeline: Pipeline, wanted: Iterable[Import]) -> list[Import]:
    """Those that the script lacks where the pipeline is loaded. Raises NotPatched where a name means something else."""
    found: list[Import] = []
    for node in wanted:
        if isinstance(node, cst.Import):
            found += [node] if not _has_module(script, pipeline, node) else []
            continue
        assert not isinstance(node.names, cst.ImportStar)
        assert node.module is not None
        module = script.module.code_for_node(node.module)
        names = [alias for alias in node.names if not _means(script, pipeline, alias, module)]
        if names:
            names[-1] = names[-1].with_changes(comma=cst.MaybeSentinel.DEFAULT)
            found.append(node.with_changes(names=names))
    return found


def _means(script: Script, pipeline: Pipeline, alias: cst.ImportAlias, module: str) -> bool:
    """Whether the script has this name of this module already."""
    name = cst.ensure_type(alias.name, cst.Name).value
    start = root(pipeline.load.func)
    assert start is not None
    origins = [one.node for one in script.assignments(start, name)]
    if not origins:
        return False
    if all(_brings(script, node, name, module.partition(".")[0]) for node in origins):
        return True
    cure = f"give it another name, as the plan needs that of {module}"
    raise script.refuse(origins[0], f"{name} is something else here", cure)


def _brings(script: Script, node: cst.CSTNode, name: str, library: str) -> bool:
    """Whether an import brings in `name` as that, from any module of `library`: libraries re-export their own."""
    if not isinstance(node, cst.ImportFrom) or node.module is None or isinstance(node.names, cst.ImportStar):
        return False
    same = any(script.text(alias.name) == name and alias.asname is None for alias in node.names)
    return same and script.text(node.module).partition(".")[0] == library


def _has_module(script: Script, pipeline: Pipeline, node: cst.Import) -> bool:
    wanted = script.module.code_for_node(node.names[0].name)
    start = root(pipeline.load.func)
    assert start is not None
    for one in script.assignments(start, wanted.partition(".")[0]):
        origin = one.node
        if isinstance(origin, cst.Import):
            if any(script.text(a.name) == wanted and a.asname is None for a in origin.names):
                return True
        elif "." not in wanted:
            cure = f"give it another name, as the plan needs the module {wanted}"
            raise script.refuse(origin, f"{wanted} is something else here", cure)
    return False


def _imports(statement: cst.CSTNode) -> bool:
    small = statement.body if isinstance(statement, cst.SimpleStatementLine) else ()
    return bool(small) and all(isinstance(one, Import) for one in small)


def unused(script: Script) -> dict[cst.ImportFrom, frozenset[str]]:
    """The names of libraries that a script imports and does not use, by the import; of those that could be left out.

    An import that is alone in its block has to stay.
    """
    found: dict[cst.ImportFrom, frozenset[str]] = {}
    for node in script.all(cst.ImportFrom):
        block = script.parent(script.statement(node))
        of = script.text(node.module).partition(".")[0] if node.module is not None else ""
        if of not in LIBRARIES or isinstance(node.names, cst.ImportStar) or not getattr(block, "body", ())[1:]:
            continue
        known = (one for alias in node.names for one in script.assignments(node, bound(script, alias)))
        names = {one.name for one in known if isinstance(one, Assignment) and one.node is node and not one.references}
        if names:
            found[node] = frozenset(names)
    return found


def bound(script: Script, alias: cst.ImportAlias) -> str:
    """The name that an import gives."""
    return script.text(alias.asname.name if alias.asname is not None else alias.name)
