"""Which model runs on which card: many cases, priced side by side, and kept in a file."""
