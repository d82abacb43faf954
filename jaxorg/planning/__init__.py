"""Which phases a sweep trains, once each, and in which groups; no device is touched."""
