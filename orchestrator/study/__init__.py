"""All of Optuna: which trials exist, what they scored, and what becomes of them. No other folder imports it."""
