"""What is decided, as pure functions of data: no library of others, no clock, no environment, no file."""
