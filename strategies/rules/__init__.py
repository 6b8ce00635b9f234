"""What techniques refuse, in which words, and where they sit."""
