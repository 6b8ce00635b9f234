"""What the formats of bitsandbytes share: the config of the libraries' loaders, which quantize on the device."""

from memplan.strategy import Config


def bnb_config(library: str, skip: tuple[str, ...], *settings: str) -> Config:
    """The config class of `library` with `settings`; the option that names what to leave is that of both widths."""
    left = [f"llm_int8_skip_modules={list(skip)}"] if skip else []
    lines = [f"    {setting}," for setting in (*settings, *left)]
    value = "\n".join([f"{library}.BitsAndBytesConfig(", *lines, ")"])
    return Config(("import torch", f"import {library}"), value, on_device=True)
