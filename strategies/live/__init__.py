"""What is done to the modules of a live pipeline, and the way back."""
