"""Finds the pipeline in a user's script, and puts a plan into it. It needs libcst."""
