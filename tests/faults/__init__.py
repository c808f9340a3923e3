"""Faults injected at random moments into a real sweep, and the laws that hold after each of them."""
