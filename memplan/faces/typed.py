"""Errors as the command line says them: what to do is an option there, and an argument in Python."""

from memplan.errors import MemplanError, NoDevice, NoGpu, NoRoom

NAME_A_GPU = '--gpu "RTX 4070" names a card, --vram 12 any other by its GiB.'
"""How the command line says which card to plan for."""
CURES: tuple[tuple[type[NoGpu | NoDevice | NoRoom], str], ...] = (
    (NoGpu, NAME_A_GPU),
    (NoDevice, f"Run it where there is one, or rehearse it on the CPU, by --device cpu, for a card: {NAME_A_GPU}"),
    (NoRoom, "Free memory, name a plan that needs less, or say --force to do it all the same."),
)


def sentence(error: MemplanError) -> str:
    """What is said of an error where options are typed."""
    return next((f"{error.why} {cure}" for kind, cure in CURES if isinstance(error, kind)), str(error))
