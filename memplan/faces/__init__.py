"""The ways in: Python, the command line, and the reports they share."""
