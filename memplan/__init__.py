"""A memory-strategy planner and auto-configurator for PyTorch and diffusers pipelines."""
