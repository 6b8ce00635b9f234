"""What the quantizers share."""
