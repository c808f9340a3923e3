"""A fuzzer: hostile sweep files, arguments, curves, checkpoints, pictures and journals, each made from a seed."""
