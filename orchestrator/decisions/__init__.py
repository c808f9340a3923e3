"""Decisions as pure functions of data: they use no vendor's library, clock, environment or file."""
