"""What lies on disk, and how it gets there whole."""
