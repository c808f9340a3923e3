"""Laws of the screen: plain lines without a terminal, a table on one."""

from __future__ import annotations

import io
import os
import pty
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from rich.console import Console

from orchestrator.driver.progress import Progress, best_line, trial_line
from orchestrator.study.status import status_of
from orchestrator.study.study import SweepStudy
from tests.support import made_up
from tests.support.sweeps import REPOSITORY


def follow(folder: Path, *, terminal: bool) -> str:
    """What is written while a made-up sweep runs to its end."""
    text = io.StringIO()
    follow_on(Console(file=text, force_terminal=terminal, width=160), folder)
    return text.getvalue()


def follow_on(console: Console, folder: Path) -> None:
    """Runs a made-up sweep to its end and shows it on `console`."""
    study = SweepStudy.create(folder, made_up.sweep("pruner={name: median, startup: 1}"))
    with Progress(console, study.sweep) as progress:
        while (ticket := study.next_ticket()) is not None:
            shown = partial(progress.show, budget=study.sweep.budget.trials, status=partial(status_of, study))
            shown(study.record(ticket.number))
            for count in (1, 2, 3):
                worse = float(ticket.number)
                study.report(ticket.number, made_up.history(3 + worse, 2 + worse, 1 + worse)[:count])
                shown(study.record(ticket.number))
                if study.records()[ticket.number].state != "running":
                    break


def test_without_a_terminal_each_rung_is_a_plain_line(tmp_path: Path) -> None:
    lines = follow(tmp_path, terminal=False).splitlines()
    assert len(lines) == 3 + 4  # one trial of three rungs, four pruned at their first
    assert re.match(r"\[  0/5\] trial   0 running        1 kimg  kid 3.000 ± 0.010  fid 300$", lines[0])
    assert "complete" in lines[2]
    assert lines[-1].startswith("[  5/5] trial   4 pruned")
    assert "(median pruner at 1 kimg: kid " in lines[-1]
    assert "\x1b" not in "".join(lines)


def test_time_left_is_told_once_a_trial_has_ended_and_until_the_last_has(tmp_path: Path) -> None:
    lines = follow(tmp_path, terminal=False).splitlines()
    assert ["ETA" in line for line in lines] == [False, False, True, True, True, True, False]


def test_a_terminal_gets_a_table_with_every_trial_and_the_best(tmp_path: Path) -> None:
    text = follow(tmp_path, terminal=True)
    for word in ("sweep made-up", "best kid", "complete", "pruned", "5 of 5 trials", "best so far: trial   0"):
        assert word in text


@pytest.mark.parametrize("output", ["full disk", "full disk seen as a terminal", "no reader", "no terminal"])
def test_a_screen_that_takes_nothing_ends_no_sweep(tmp_path: Path, output: str) -> None:
    if output == "no terminal":
        other, stream = pty.openpty()
        os.close(other)
    elif output == "no reader":
        other, stream = os.pipe()
        os.close(other)
    else:
        stream = os.open("/dev/full", os.O_WRONLY)
    code = (
        "import pathlib, sys, warnings\nfrom rich.console import Console\n"
        "from tests.driver.test_progress import follow_on\nfrom trainers.command_line import command_line\n"
        "with command_line():\n    terminal = True if 'terminal' in sys.argv[1] else None\n"
        "    follow_on(Console(force_terminal=terminal), pathlib.Path('.'))\n    warnings.warn('unseen')\n"
        "    print('printed', file=sys.stderr)\n    pathlib.Path('end').touch()\n    sys.exit(7)"
    )
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "TERM": "xterm"}
    command = [sys.executable, "-c", code, output]
    done = subprocess.run(command, cwd=tmp_path, env=environment, stdout=stream, stderr=stream, check=False)
    os.close(stream)
    assert done.returncode == 7
    assert (tmp_path / "end").exists()
    study = SweepStudy.open(tmp_path)
    assert study is not None
    assert status_of(study).state == "complete"


@pytest.mark.parametrize("kids", [(), (3.0,)])
def test_a_trial_is_one_line_whatever_it_has(tmp_path: Path, kids: tuple[float, ...]) -> None:
    study = SweepStudy.create(tmp_path, made_up.sweep())
    assert study.next_ticket() is not None
    if kids:
        study.report(0, made_up.history(*kids))
    assert "\n" not in trial_line(study.records()[0], "kid")


def test_the_best_trial_is_shown_with_the_score_that_it_is_ranked_by(tmp_path: Path) -> None:
    study = SweepStudy.create(tmp_path, made_up.sweep("budget.trials=1"))
    assert study.next_ticket() is not None
    study.report(0, made_up.history(3.0, 1.0, 2.0))
    (record,) = study.records()
    assert "3 kimg  kid 2.0" in trial_line(record, "kid")
    assert "2 kimg  kid 1.0" in best_line(record, "kid")
