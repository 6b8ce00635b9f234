"""Parameters and buffers whose bytes can be elsewhere for a while."""

from collections.abc import Iterator, Sequence
from typing import Any

from memplan.errors import BadInput

Tables = list[tuple[dict[str, Any], str]]
"""Where a tensor stands: tables of parameters or buffers of modules, and its name in each."""


def standing(module: Any, *, deep: bool = True) -> dict[int, tuple[Any, Tables]]:
    """Each tensor of `module` that holds something, and where it stands, by its id. Not `deep` are only its own."""
    found: dict[int, tuple[Any, Tables]] = {}
    for part in module.modules() if deep else (module,):
        for table in (part._parameters, part._buffers):
            for key, tensor in table.items():
                if tensor is not None and tensor.numel():
                    found.setdefault(id(tensor), (tensor, []))[1].append((table, key))
    return found


def plain(tensor: Any) -> list[Any]:
    """The tensors that hold what `tensor` holds: itself, or those inside one of a subclass such as torchao's."""
    import torch

    if not _wraps(tensor):
        return [tensor.detach().as_subclass(torch.Tensor)]
    names, _ = tensor.__tensor_flatten__()
    return [part for name in names for part in plain(getattr(tensor, name))]


def _wraps(tensor: Any) -> bool:
    from torch.utils._python_dispatch import is_traceable_wrapper_subclass

    return is_traceable_wrapper_subclass(tensor)


def _like(tensor: Any, parts: Iterator[Any]) -> Any:
    """A tensor of the subclass of `tensor` with other tensors inside."""
    if not _wraps(tensor):
        return next(parts)
    names, context = tensor.__tensor_flatten__()
    inner = {name: _like(getattr(tensor, name), parts) for name in names}
    return type(tensor).__tensor_unflatten__(inner, context, tensor.size(), tensor.stride())


def _fill(tensor: Any, parts: Iterator[Any]) -> None:
    """Gives a tensor of a subclass itself other tensors inside."""
    for name in tensor.__tensor_flatten__()[0]:
        inner = getattr(tensor, name)
        if _wraps(inner):
            _fill(inner, parts)
        else:
            setattr(tensor, name, next(parts))


class Weight:
    """A tensor of a module that is made of other bytes now and then; `homes` are the devices that its parts came from.

    The tensor itself stays, and another stands for it only where it is of a subclass that wraps others, as its device
    cannot be changed.
    """

    def __init__(self, tensor: Any, tables: Tables) -> None:
        """`tables` are where it stands."""
        self.own, self.tables, self.wraps = tensor, tables, _wraps(tensor)
        self.homes = [part.device for part in plain(tensor)]
        self.shown = tensor

    def show(self, parts: Sequence[Any]) -> None:
        """The module finds the weight made of `parts`."""
        import torch

        if not self.wraps:
            (self.own.data,) = parts
            return
        made = _like(self.own, iter(parts))
        self._stand(torch.nn.Parameter(made, False) if isinstance(self.own, torch.nn.Parameter) else made)

    def settle(self, parts: Sequence[Any]) -> None:
        """The tensor itself is made of `parts`, and of nothing else."""
        if self.wraps:
            _fill(self.own, iter(parts))
        else:
            self.show(parts)

    def back(self) -> None:
        """The tensor itself stands where it stood."""
        if self.wraps:
            self._stand(self.own)

    def _stand(self, tensor: Any) -> None:
        self.shown = tensor
        for table, key in self.tables:
            table[key] = tensor

    def changed(self, parts: Sequence[Any]) -> list[Any] | None:
        """What the weight is made of now, where that is no longer `parts`; None where it is, or stands no more.

        Raises BadInput where it has another shape or dtype.
        """
        table, key = self.tables[0]
        now = table.get(key)
        if now is None or (now is not self.shown and not self.wraps):
            return None
        found = plain(now)
        if all(a.data_ptr() == b.data_ptr() for a, b in zip(found, parts, strict=False)):
            return None
        if [(a.shape, a.dtype) for a in found] != [(b.shape, b.dtype) for b in parts]:
            raise BadInput(f"{key} has another shape or dtype than when its component was placed: undo, change, apply")
        return found
