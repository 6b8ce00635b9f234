"""What a plan does to a pipeline's time, memory and outputs, beside the same calls without it."""
