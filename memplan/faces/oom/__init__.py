"""What people are told when memory ran out, and how they come to be told."""
