"""Data sets: real images as integers, in memory, with their labels."""
