"""What a call was given, so that it can be made again as if for the first time."""

from typing import Any

PLAIN = (str, int, float, bool, type(None))


class Start:
    """The arguments of a call before it is made, and the state of the random numbers that it may draw."""

    def __init__(self, args: tuple[Any, ...], given: dict[str, Any]) -> None:
        """Nothing of the tensors is copied: their versions tell whether somebody has written to them since."""
        import torch
        from torch.utils._pytree import tree_leaves

        leaves = tree_leaves((args, given))
        self.tensors = [(leaf, leaf._version) for leaf in leaves if _versioned(leaf)]
        self.generators = [(leaf, leaf.get_state()) for leaf in leaves if isinstance(leaf, torch.Generator)]
        self.others = [leaf for leaf in leaves if not isinstance(leaf, (torch.Tensor, torch.Generator, *PLAIN))]
        self.drawn = torch.get_rng_state()
        self.on_device = _device_states()

    @property
    def unchanged(self) -> bool:
        """Whether all tensors are as they were given."""
        return all(tensor._version == version for tensor, version in self.tensors)

    @property
    def plain(self) -> bool:
        """Whether nothing was given that may have changed unseen, as the cache of a language model does."""
        import torch

        return all(isinstance(other, (torch.dtype, torch.device)) for other in self.others)

    def restore(self) -> None:
        """Gives the generators their states again, torch's own included."""
        import torch

        torch.set_rng_state(self.drawn)
        for generator, state in self.generators:
            generator.set_state(state)
        for backend, states in self.on_device:
            backend.set_rng_state_all(states)


def _versioned(leaf: Any) -> bool:
    import torch

    return isinstance(leaf, torch.Tensor) and not leaf.is_inference()


def _device_states() -> list[tuple[Any, Any]]:
    """Of each backend that is in use, the states of its devices' own generators."""
    import torch

    used = [backend for backend in (torch.cuda, torch.xpu) if backend.is_available() and backend.is_initialized()]
    return [(backend, backend.get_rng_state_all()) for backend in used]
