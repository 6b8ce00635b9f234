"""The packages that techniques need, as they are installed beside memplan."""

from importlib.metadata import PackageNotFoundError, version

OPTIONAL = ("bitsandbytes", "torchao", "optimum-quanto", "nvidia-modelopt", "gguf", "peft")


def installed() -> tuple[tuple[str, str], ...]:
    """Name and version of each that is there; none is imported."""
    found: list[tuple[str, str]] = []
    for package in OPTIONAL:
        try:
            found.append((package, version(package)))
        except PackageNotFoundError:
            continue
    return tuple(found)
