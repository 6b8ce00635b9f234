"""Renders answers as text for terminals, as JSON and as code; it reads nothing."""
