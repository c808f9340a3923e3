"""The one process that runs a sweep: what it checks first, puts together, shows and cleans up."""
