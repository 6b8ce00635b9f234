"""Weights that come to the device while others compute."""
