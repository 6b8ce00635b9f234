"""What all tests share: no network, repeatable examples, and no GPU tests where there is no GPU."""

import os

import pytest
from hypothesis import settings

os.environ["HF_HUB_OFFLINE"] = "1"  # before any test imports huggingface_hub
os.environ.pop("COLUMNS", None)  # reports are as wide as where nobody says, however wide this terminal is
os.environ.setdefault("OMP_NUM_THREADS", "1")  # before any test imports torch: a process per core has one each

settings.register_profile("memplan", deadline=None, derandomize=True)  # two cores of an unknown machine
settings.load_profile("memplan")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what is marked `gpu` without a CUDA device; torch is imported only to find out."""
    marked = [item for item in items if "gpu" in item.keywords]
    if not marked:
        return
    import torch

    if not torch.cuda.is_available():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
