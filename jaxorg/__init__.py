"""Hundreds of small backdoor-robustness experiments at once."""
