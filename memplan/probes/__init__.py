"""Measures the machine, the pipeline and one call of it. Torch lives here."""
