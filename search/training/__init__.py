"""Training of one configuration. Knows nothing of studies."""
