"""What real runs took beside what was predicted for them: measured, kept on this machine, and learned from."""
