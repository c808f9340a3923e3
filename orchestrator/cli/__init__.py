"""What people type: the commands, their options, and what they print."""
