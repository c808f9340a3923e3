"""Training of one model by several processes, with the same results as by one."""
