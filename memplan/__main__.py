"""python -m memplan."""
