"""The driver, the one process that runs a sweep: launching, warm start, progress, cost estimate, garbage collection."""
