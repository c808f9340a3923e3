"""All of Ray: nodes, trials and their workers, finals, jobs. No other folder imports it."""
