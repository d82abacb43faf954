"""What a sweep file may say, and how it is read."""
