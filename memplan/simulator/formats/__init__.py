"""Formats in which weights are stored, library by library: their bytes, what layers hold, and their error."""

from collections.abc import Mapping
from types import MappingProxyType

from memplan.simulator.formats.bitsandbytes import BITSANDBYTES
from memplan.simulator.formats.contract import E4M3_ERROR, E5M2_ERROR
from memplan.simulator.formats.contract import Format as Format
from memplan.simulator.formats.contract import Leaf as Leaf
from memplan.simulator.formats.modelopt import MODELOPT
from memplan.simulator.formats.quanto import QUANTO
from memplan.simulator.formats.torchao import TORCHAO

FORMATS: Mapping[str, Format] = MappingProxyType({**BITSANDBYTES, **TORCHAO, **QUANTO, **MODELOPT})
"""The formats of quantizers, by the name that a picture gives them."""

CASTS: Mapping[str, float] = MappingProxyType({"float8_e4m3fn": E4M3_ERROR, "float8_e5m2": E5M2_ERROR})
"""The dtypes to which layerwise casting casts weights, and the error of normally distributed ones."""
