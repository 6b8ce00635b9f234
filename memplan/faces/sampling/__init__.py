"""Calls that keep gradients."""
