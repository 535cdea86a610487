"""What may vary: configurations and search spaces, as plain data."""
