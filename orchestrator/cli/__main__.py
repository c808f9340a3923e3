"""The command `gansweep`, and `python -m orchestrator.cli`, which jobs of a cluster run."""

from __future__ import annotations

import sys

from orchestrator.cli import commands, images
from orchestrator.cli.app import PROGRAM, app
from orchestrator.cluster import signals
from trainers.command_line import command_line
from trainers.errors import InputError

__all__ = ["app", "commands", "images", "main"]  # the import of the two modules adds their commands to the app


@signals.watch()
def main() -> None:
    """Runs the command line, see `command_line`. A lost lease is one line and exit code 3.

    After Ctrl-C, SIGTERM or SIGHUP the exit code is 128 plus the signal's number: 130, 143, 129.
    """
    with command_line():
        try:
            app(prog_name=PROGRAM)
        except InputError:
            raise
        except Exception as error:
            from orchestrator.study.lease import LeaseLostError  # here, since help and completion need none of it

            if not isinstance(error, LeaseLostError):
                raise
            print(f"error: {error}; this driver writes nothing more", file=sys.stderr)
            sys.exit(3)


if __name__ == "__main__":
    main()
