"""One model trained by several processes, with the results of one."""
