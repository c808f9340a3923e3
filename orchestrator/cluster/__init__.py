"""The cluster: nodes, trials and their workers, finals, jobs. No other folder imports ray."""
