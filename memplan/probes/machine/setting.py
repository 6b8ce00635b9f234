"""What decides how fast the machine at hand works, by name and version; no figure of it, and no torch."""

from importlib.metadata import version

from memplan.facts import Gpu, Setting
from memplan.probes.machine.host import cpu_name


def setting(gpu: Gpu | None) -> Setting:
    """That of this machine, whose card is `gpu`."""
    card = (gpu.name, gpu.driver, gpu.link_name) if gpu else ("", "", "")
    return Setting(*card, version("torch"), cpu_name())
