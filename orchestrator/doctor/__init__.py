"""`gansweep doctor`: whether a sweep could run here, and what helps if it could not."""
