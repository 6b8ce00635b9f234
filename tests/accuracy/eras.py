"""What the libraries did differently when a figure was measured, where that changes the peak.

Each era changes the installed library's code for the length of a context, by what its source of that date does, or the
formats by which weights are priced. It shows that an error comes from the code that was measured, not from the method.
"""

from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from diffusers.models.autoencoders import autoencoder_kl_cogvideox as cogvideox
from diffusers.models.upsampling import Upsample2D
from torch import nn
from torch.nn import functional as F

from memplan.simulator import arrivals, weights
from memplan.simulator.formats import Format
from tests.accuracy.affine import BY_ROW, FORMATS_THEN


@contextmanager
def era(names: str) -> Generator[None]:
    """The context of all these names; "" is today."""
    with ExitStack() as stack:
        for name in names.split():
            stack.enter_context(ERAS[name]())
        yield


def traced(names: str) -> str:
    """Those of the names that change the code of a dry run."""
    priced = (torchao_affine.__name__, torchao_by_row.__name__)
    return " ".join(name for name in names.split() if name not in priced)


@contextmanager
def float32_upsampling() -> Generator[None]:
    """Before diffusers 0.31 (PR #9480), Upsample2D interpolated bfloat16 images in float32."""

    def forward(self: Any, image: torch.Tensor, output_size: Any = None) -> torch.Tensor:
        if image.dtype != torch.bfloat16:
            return today(self, image, output_size)
        wide = image.to(torch.float32)
        if wide.shape[0] >= LARGE_BATCH:
            wide = wide.contiguous()
        del image
        wide = F.interpolate(wide, scale_factor=None if output_size else 2.0, size=output_size, mode="nearest")
        wide = wide.to(torch.bfloat16)
        return self.conv(wide) if self.use_conv else wide

    today = Upsample2D.forward
    with patch.object(Upsample2D, "forward", forward):
        yield


LARGE_BATCH = 64
"""From this batch on Upsample2D makes its image contiguous."""


@contextmanager
def cogvideox_cache_in_modules() -> Generator[None]:
    """Before diffusers 0.31 (PR #9524), each causal convolution of CogVideoX kept its own cache of frames.

    It dropped the old frames before it copied the new ones; since then all old ones live until all new ones are made.
    Images were padded by a copy, and a spatial norm computed its group norm first.
    """
    caches: dict[nn.Module, torch.Tensor] = {}

    def convolve(self: Any, inputs: torch.Tensor, conv_cache: Any = None) -> tuple[torch.Tensor, bool]:
        earlier = self.time_kernel_size - 1
        if earlier:
            cached = [caches[self]] if conv_cache else [inputs[:, :, :1]] * earlier
            inputs = torch.cat([*cached, inputs], dim=2)
            del cached
        caches.pop(self, None)
        caches[self] = inputs[:, :, -earlier:].clone()
        inputs = F.pad(inputs, (self.width_pad, self.width_pad, self.height_pad, self.height_pad))
        with patch.object(self.conv, "padding", (0, 0, 0)):
            return self.conv(inputs), True

    def normalise(self: Any, f: torch.Tensor, zq: torch.Tensor, conv_cache: Any = None) -> tuple[torch.Tensor, Any]:
        first = int(f.shape[2] > 1 and f.shape[2] % 2)
        parts = [(f[:, :, :first], zq[:, :, :first])] if first else []
        parts.append((f[:, :, first:], zq[:, :, first:]))
        scaled = [F.interpolate(z, size=part.shape[-3:]) for part, z in parts]
        zq = torch.cat(scaled, dim=2) if first else scaled[0]
        del scaled
        normed = self.norm_layer(f)
        return normed * self.conv_y(zq)[0] + self.conv_b(zq)[0], {}

    def decode(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return today(self, *args, **kwargs)
        finally:
            caches.clear()

    today = cogvideox.AutoencoderKLCogVideoX._decode
    with (
        patch.object(cogvideox.CogVideoXCausalConv3d, "forward", convolve),
        patch.object(cogvideox.CogVideoXSpatialNorm3D, "forward", normalise),
        patch.object(cogvideox.AutoencoderKLCogVideoX, "_decode", decode),
    ):
        yield


@contextmanager
def torchao_affine() -> Generator[None]:
    """Before torchao 0.16, 8-bit weights were AffineQuantizedTensor: other scales, and less to compute with them."""
    with _formats(FORMATS_THEN):
        yield


@contextmanager
def torchao_by_row() -> Generator[None]:
    """The same, with float8_dynamic_activation_float8_weight(PerRow()): a scale for each row in place of one."""
    with _formats({**FORMATS_THEN, "float8 dynamic": BY_ROW}):
        yield


@contextmanager
def _formats(then: Mapping[str, Format]) -> Generator[None]:
    with patch.object(weights, "FORMATS", then), patch.object(arrivals, "FORMATS", then):
        yield


ERAS: dict[str, Callable[[], AbstractContextManager[None]]] = {
    f.__name__: f for f in (float32_upsampling, cogvideox_cache_in_modules, torchao_affine, torchao_by_row)
}
