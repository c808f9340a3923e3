"""`python -m orchestrator.cli`, which jobs of a cluster run, and the command `gansweep`."""

from orchestrator.cli.commands import main

if __name__ == "__main__":
    main()
