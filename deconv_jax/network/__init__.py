"""Networks as data, their forward pass with switches, and their files."""
