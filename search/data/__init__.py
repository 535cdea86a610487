"""Image data: reading, caching, splitting, showing."""
