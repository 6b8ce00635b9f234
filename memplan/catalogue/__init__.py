"""Data: GPUs and bundled models, each with its sources."""
