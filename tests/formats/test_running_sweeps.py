"""What a later release may change under a running sweep: its trials go on as if nothing had changed.

Each test begins a trial, has "a later release" change one thing, opens the study again and continues the trial.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import Field, create_model

from orchestrator.cluster.runs import new_run
from orchestrator.study.study import SweepStudy, Ticket
from search_spaces.sweep import Sweep, read_kept
from tests.support import made_up
from trainers import checkpoint, formats
from trainers.catalogue import SYSTEMS
from trainers.config import Config, overlay
from trainers.errors import InputError
from trainers.formats import Format, removed, renamed
from trainers.run import Run
from trainers.rungs import Rung

pytestmark = pytest.mark.usefixtures("mnist_mini_lenet")
SYSTEM = "narman-cgan"
SMALL = ("search={g_lr: {log_uniform: [2e-5, 5e-3]}, width: 0.06, latent: 16, batch: 20}", "rungs=[0.1, 0.2]")


class Running:
    """A sweep with one trial at its first rung."""

    def __init__(self, root: Path, cache: Path, sweep: Sweep) -> None:
        self.root, self._cache = root, cache
        self.study = SweepStudy.create(root, sweep)
        ticket = self.study.next_ticket()
        assert ticket is not None
        self.ticket: Ticket = ticket
        run = self.run(self.study)
        run.next_rung()
        self.checkpoint = run.save(root / "trial")
        self.whole = run

    def run(self, study: SweepStudy) -> Run:
        return new_run(study.sweep, self._cache, self.ticket.params)

    def reopened(self) -> SweepStudy:
        """The study in a later process."""
        study = SweepStudy.open(self.root)
        assert study is not None
        return study

    def goes_on(self) -> Run:
        """The trial in a later process, at its second rung; it has to end as if it had never been interrupted."""
        run = self.run(self.reopened())
        assert run.restore(self.root / "trial")
        assert same(run.next_rung(), self.whole.next_rung())
        return run


Begin = Callable[[Sweep], Running]


def small(*overrides: str) -> Sweep:
    return made_up.sweep(*SMALL, *overrides)


def same(a: Rung, b: Rung) -> bool:
    return (a.images, a.scores, a.losses["loss_g"]) == (b.images, b.scores, b.losses["loss_g"])


@pytest.fixture
def begin(tmp_path: Path, cache_dir: Path) -> Begin:
    return lambda sweep: Running(tmp_path, cache_dir, sweep)


def change_system(monkeypatch: pytest.MonkeyPatch, **defaults: Any) -> None:
    """Changes defaults of the system."""
    system = SYSTEMS[SYSTEM]
    monkeypatch.setitem(SYSTEMS, SYSTEM, replace(system, defaults=overlay(system.defaults, defaults)))


def change_class(monkeypatch: pytest.MonkeyPatch, **fields: Any) -> None:
    """Gives the system's class of configurations other fields, and the system their defaults."""
    system = SYSTEMS[SYSTEM]
    kind = type(system.defaults)
    later = create_model(kind.__name__, __base__=kind, **fields)
    values = {name: value for name, value in system.defaults if name not in fields}
    monkeypatch.setitem(SYSTEMS, SYSTEM, replace(system, defaults=later.model_validate(values)))


def test_a_field_with_a_default_is_added(begin: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    running = begin(small())
    change_class(monkeypatch, leak=(float, Field(0.25)))
    change_system(monkeypatch, leak=0.5)
    # The class default means what the program did before; the system's default is for new sweeps.
    assert running.goes_on().config.model_dump()["leak"] == 0.25
    assert small().configure(running.ticket.params)[1].model_dump()["leak"] == 0.5


def test_a_field_added_to_a_sweep_is_kept_from_its_next_launch_on(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = begin(small())
    change_class(monkeypatch, leak=(float, Field(0.25)))
    running.reopened().upgrade()
    assert running.reopened().sweep.defaults[SYSTEM]["leak"] == 0.25


def test_a_default_of_a_system_changes(begin: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    running = begin(small())
    change_system(monkeypatch, beta1=0.9)
    assert running.goes_on().config.beta1 == 0.5
    assert small().configure(running.ticket.params)[1].beta1 == 0.9


def test_a_default_of_a_class_changes(begin: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    running = begin(small())
    change_class(monkeypatch, beta1=(float, Field(0.9)))
    assert small().configure(running.ticket.params)[1].beta1 == 0.9
    assert running.goes_on().config.beta1 == 0.5


def test_a_key_that_a_checkpoint_must_share_is_added_with_a_migration(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = begin(small())
    before = Run._identity
    monkeypatch.setattr(Run, "_identity", lambda run: {**before(run), "noise": "normal"})
    with pytest.raises(ValueError, match="the checkpoint is of noise None, not of normal"):
        running.run(running.reopened()).restore(running.root / "trial")

    def give_noise(manifest: dict[str, Any]) -> dict[str, Any]:
        return {**manifest, "noise": "normal"}

    monkeypatch.setattr(formats, "MANIFEST", Format((*formats.MANIFEST.migrations, give_noise)))
    saved = running.goes_on().save(running.root / "trial")
    assert checkpoint.read_manifest(saved)["noise"] == "normal"
    monkeypatch.setattr(Run, "_identity", lambda run: {**before(run), "noise": "uniform"})
    with pytest.raises(ValueError, match="the checkpoint is of noise normal, not of uniform"):
        running.run(running.reopened()).load(running.checkpoint)


def test_a_field_is_renamed_with_a_migration(begin: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "SETTINGS", {"Config": (renamed("lean", "slope"),)})
    text = small("search.slope={uniform: [0.1, 0.3]}").with_defaults().normalised()
    dump = Config.model_dump

    def old_dump(config: Config, **how: Any) -> dict[str, Any]:
        found = dump(config, **how)
        return renamed("slope", "lean")(found) if how else found  # as it is stored, not as it is used

    with monkeypatch.context() as earlier:
        # What the earlier release stores has the old name: the search, the defaults and the checkpoint.
        earlier.setattr(Config, "model_dump", old_dump)
        running = begin(read_kept(text.replace("slope", "lean")))
        assert "lean" in running.study.sweep.defaults[SYSTEM]
    assert "lean" in checkpoint.read(running.checkpoint)[1]["config"]
    config = running.goes_on().config
    assert config.slope == running.ticket.params["lean"]
    assert "lean" not in config.model_dump()
    running.reopened().upgrade()
    assert "lean" not in running.reopened().sweep.defaults[SYSTEM]
    assert running.run(running.reopened()).config == config


def test_a_field_that_did_nothing_in_the_sweep_is_removed_with_a_migration(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as earlier:
        change_class(earlier, leak=(float, Field(0.0)))
        running = begin(small())
        assert running.study.sweep.defaults[SYSTEM]["leak"] == 0.0
    with pytest.raises(InputError, match="does not know the settings leak; install a newer gansweep"):
        running.run(running.reopened())
    monkeypatch.setattr(formats, "SETTINGS", {"Config": (removed("leak", 0.0),)})
    running.goes_on()
    monkeypatch.setattr(formats, "SETTINGS", {"Config": (removed("leak", 1.0),)})
    with pytest.raises(InputError, match=r"leak is 0\.0, which no longer works: the program does as with 1\.0"):
        running.run(running.reopened())
