"""The machine: XLA options, several processes, signals."""
