"""Data sets: real images as uint8 tensors in memory, with their labels."""
