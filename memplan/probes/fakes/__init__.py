"""Tensors without bytes, what is known of their values, and pipelines made of them."""
