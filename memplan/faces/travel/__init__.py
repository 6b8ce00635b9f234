"""Plans as files: written, read, held against their schema, and applied somewhere else."""
