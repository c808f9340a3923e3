"""Pruners and samplers of other packages in a sweep, and ours in a plain Optuna study."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import optuna
import pytest

from orchestrator.cli.curves import read_pruner
from orchestrator.study.pruners import RulePruner
from orchestrator.study.samplers import check_named_classes
from orchestrator.study.status import read_status
from orchestrator.study.study import Decision, SweepStudy
from search_spaces.load import parse_sweep
from search_spaces.pruners import PRUNERS
from search_spaces.pruners.own_scores import Patient, Threshold
from search_spaces.pruners.percentile import Median
from search_spaces.pruners.rule import Pruner
from tests.support import made_up, sweeps
from tests.support.optuna_classes import CountingHalving
from trainers.errors import InputError

HERE = "tests.support.optuna_classes"


def named(section: str, name: str, **arguments: object) -> str:
    return f"{section}={json.dumps({'class': f'{HERE}:{name}', **arguments})}"


def ask(study: SweepStudy) -> int:
    ticket = study.next_ticket()
    assert ticket is not None
    return ticket.number


def test_a_pruner_of_another_package_prunes_and_its_name_is_the_reason(tmp_path: Path) -> None:
    study = SweepStudy.create(tmp_path, made_up.sweep(named("pruner", "EverySecond", limit=2.0)))
    assert [study.report(ask(study), made_up.history(value)) for value in (3.0, 1.0)] == [Decision.CONTINUE] * 2
    assert study.report(1, made_up.history(1.0, 3.0)) is Decision.PRUNE
    record = study.records()[1]
    assert (record.state, record.reason) == ("pruned", f"{HERE}:EverySecond pruner at 2 kimg")


def test_a_verdict_is_kept_before_it_acts_and_never_asked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pruner = named("pruner", "CountingHalving", min_resource=1000, reduction_factor=2)
    study = SweepStudy.create(tmp_path, made_up.sweep(pruner))
    assert study.report(ask(study), made_up.history(1.0)) is Decision.CONTINUE
    number = ask(study)

    def dies(*arguments: object, **named: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(study._study, "tell", dies)
    with pytest.raises(KeyboardInterrupt):
        study.report(number, made_up.history(2.0))
    asked = CountingHalving.asked
    heir = SweepStudy.open(tmp_path)
    assert heir is not None
    assert {heir.next_ticket().number, heir.next_ticket().number} == {0, 1}  # type: ignore[union-attr]
    # Successive halving has noted that the trial stood at this rung; asked again, it would let the trial go on.
    assert heir.report(number, made_up.history(2.0)) is Decision.PRUNE
    assert CountingHalving.asked == asked


def test_what_a_pruner_notes_is_kept_together_with_its_verdict_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pruner = named("pruner", "CountingHalving", min_resource=1000, reduction_factor=2)
    study = SweepStudy.create(tmp_path, made_up.sweep(pruner))
    number = ask(study)
    write = optuna.trial.Trial.set_user_attr

    def dies(trial: optuna.Trial, key: str, value: object) -> None:
        if key.startswith("verdict:"):
            raise KeyboardInterrupt
        write(trial, key, value)

    with monkeypatch.context() as patched:
        patched.setattr(optuna.trial.Trial, "set_user_attr", dies)
        with pytest.raises(KeyboardInterrupt):
            study.report(number, made_up.history(1.0))
    heir = SweepStudy.open(tmp_path)
    assert heir is not None
    (trial,) = heir._study.get_trials(deepcopy=False)
    assert trial.intermediate_values == {1000: 1.0}
    assert not [key for key in trial.system_attrs if key.startswith("completed_rung")]


def test_a_sampler_of_another_package_draws_for_each_trial_anew(tmp_path: Path) -> None:
    def params(folder: str, sampler: str) -> list[float]:
        study = SweepStudy.create(tmp_path / folder, made_up.sweep(sampler, "pruner=none"))
        tickets = [study.next_ticket() for _ in range(4)]
        return [ticket.params["g_lr"] for ticket in tickets if ticket is not None]

    for folder in "abcd":
        (tmp_path / folder).mkdir()
    drawn = params("a", named("sampler", "Seeded", seed=4, spread=0.5))
    assert len(set(drawn)) == 4
    assert params("b", named("sampler", "Seeded", seed=4)) == drawn
    assert params("c", named("sampler", "Seeded", seed=5)) != drawn
    assert params("d", named("sampler", "Corner")) == [2e-5] * 4


def test_a_sampler_without_a_seed_is_said() -> None:
    (notice,) = check_named_classes(made_up.sweep(named("sampler", "Corner")))
    assert notice == f"sampler {HERE}:Corner takes no seed: another run of this sweep draws other parameters"
    assert check_named_classes(made_up.sweep(named("sampler", "Seeded"), named("pruner", "EverySecond"))) == []


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("pruner={class: 'no.such.package:Name'}", "pruner.class: no.such.package:Name cannot be imported: ModuleNot"),
        (named("pruner", "Missing"), f"pruner.class: {HERE}:Missing cannot be imported: AttributeError"),
        (named("pruner", "Corner"), "allowed is a subclass of optuna's BasePruner"),
        (named("sampler", "EverySecond"), "allowed is a subclass of optuna's BaseSampler"),
        (named("pruner", "EverySecond", limits=3), r"EverySecond does not take limits: 3: TypeError"),
        (named("pruner", "Exploding"), "Exploding does not take no arguments: RuntimeError: no licence"),
    ],
)
def test_a_class_that_cannot_serve_is_refused_in_one_sentence(override: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as refused:
        check_named_classes(made_up.sweep(override))
    assert "\n" not in str(refused.value)


def test_code_of_another_package_that_raises_is_named(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    study = SweepStudy.create(tmp_path / "a", made_up.sweep(named("pruner", "Raising")))
    number = ask(study)
    with pytest.raises(InputError, match=rf"pruner\.class: {HERE}:Raising raised ZeroDivisionError: of no use"):
        study.report(number, made_up.history(1.0))
    study = SweepStudy.create(tmp_path / "b", made_up.sweep(named("sampler", "Corner", fails=True)))
    with pytest.raises(InputError, match=rf"sampler\.class: {HERE}:Corner raised KeyError"):
        study.next_ticket()


def test_a_class_may_be_set_over_a_name_and_have_any_argument() -> None:
    found = made_up.sweep(f"pruner.class={HERE}:EverySecond", "pruner.path=3")
    assert found.pruner.optuna_pruner((1,)) == (f"{HERE}:EverySecond", {"path": 3})
    assert parse_sweep(found.normalised()) == found


def test_several_objectives_and_simulations_refuse_pruners_of_other_packages() -> None:
    with pytest.raises(InputError, match=r"pruner\.class: .*EverySecond takes only one objective"):
        made_up.sweep(named("pruner", "EverySecond"), "objectives=[score, gpu_hours]")
    with pytest.raises(InputError, match="cannot be simulated"):
        read_pruner(f"{{class: '{HERE}:EverySecond'}}")


def test_status_does_not_import_the_class(tmp_path: Path) -> None:
    text = made_up.sweep(named("pruner", "EverySecond")).normalised().replace(HERE, "no.such.package")
    SweepStudy.create(tmp_path, parse_sweep(text))
    assert read_status(tmp_path).state == "interrupted"


@pytest.mark.slow
def test_a_real_sweep_takes_pruner_and_sampler_of_another_package(tmp_path: Path, cache_dir: Path) -> None:
    text = f"""
system: narman-cgan
dataset: mnist-mini
search: {{g_lr: {{log_uniform: [1e-4, 1e-2]}}, width: 0.1, batch: 10}}
rungs: [0.01, 0.02]
score: {{samples: 50, also: []}}
finals: {{trials: 0}}
budget: {{trials: 3}}
sampler: {{class: "{HERE}:Corner"}}
pruner: {{class: "{HERE}:EverySecond", limit: -1}}
"""
    sweeps.prepare(tmp_path, cache_dir, text)
    here = {"PYTHONPATH": str(sweeps.REPOSITORY)}
    done = sweeps.gansweep("launch", "tiny.yaml", cwd=tmp_path, timeout=500, settings=here)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"warning: sampler {HERE}:Corner takes no seed" in done.stdout
    found = read_status(tmp_path / "runs" / "tiny")
    assert [record.state for record in found.records] == ["complete", "pruned", "complete"]
    assert {record.params["g_lr"] for record in found.records} == {1e-4}
    assert found.records[1].reason == f"{HERE}:EverySecond pruner at 0.01 kimg"
    missing = subprocess.run(
        [sys.executable, "-m", "orchestrator.cli", "launch", "tiny.yaml", "--name", "other", "--set",
         "pruner={class: 'no.such:Name'}", "--root", "runs"],
        cwd=tmp_path, capture_output=True, text=True, timeout=200,
        env={**sweeps.environment(), **here},
    )  # fmt: skip
    assert missing.returncode == 2
    assert "pruner.class: no.such:Name cannot be imported" in missing.stderr
    assert not (tmp_path / "runs" / "other").exists()


@pytest.mark.parametrize("pruner", [Median(startup=1), Patient(patience=2), Threshold(upper=4.5)])
@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_ours_prune_in_a_plain_optuna_study(pruner: Pruner, direction: str) -> None:
    sign = 1 if direction == "minimize" else -1
    chosen = Threshold(lower=-4.5) if isinstance(pruner, Threshold) and sign < 0 else pruner
    study = optuna.create_study(direction=direction, pruner=RulePruner(chosen))

    def objective(trial: optuna.Trial) -> float:
        worse = trial.number == 1
        for step in range(1, 5):
            value = 5.0 if worse else 4.0 - step / 2
            trial.report(sign * value, step)
            if trial.should_prune():
                raise optuna.TrialPruned
        return sign * value

    study.optimize(objective, n_trials=3)
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "PRUNED", "COMPLETE"]


def test_what_pauses_is_no_pruner_of_a_plain_study() -> None:
    for name in ("freeze-thaw", "halving", "hyperband"):
        with pytest.raises(ValueError, match="has no rule that prunes"):
            RulePruner(PRUNERS[name]())
