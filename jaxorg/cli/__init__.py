"""What people meet on a terminal."""
