"""What a script that ran out of memory is told, and the ways to have it told."""
