"""The best trials of a real sweep are scored again by clean-fid's procedure: once each, whatever dies in between."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from mlflow import MlflowClient

from orchestrator.driver.progress import final_line
from orchestrator.paths import JOURNAL, mlflow_uri
from orchestrator.study.journal_lines import CHECK
from orchestrator.study.records import Final
from orchestrator.study.status import status_of
from orchestrator.study.study import SweepStudy
from tests.support import made_up, sweeps
from trainers.checkpoint import STATE, folder_name
from trainers.data.spec import DatasetSpec
from trainers.evaluation.spec import ExtractorSpec
from trainers.tools.score import score

TEXT = sweeps.TINY.replace("finals: {trials: 0}", "finals: {trials: 2, samples: 150}").replace("trials: 5", "trials: 3")
BOTH = ("fid", "kid")


def test_the_finalists_are_the_best_trials_of_a_complete_sweep(tmp_path: Path) -> None:
    study = SweepStudy.create(tmp_path, made_up.sweep("budget.trials=4", "pruner=none", "finals.trials=2"))
    for kid in (3.0, 1.0, 2.0, 4.0):
        assert status_of(study).finalists == []
        ticket = study.next_ticket()
        assert ticket is not None
        study.report(ticket.number, made_up.history(5.0, kid, kid + 1))
    assert [record.number for record in status_of(study).finals_missing] == [1, 2]


def test_finals_are_kept_with_the_study_and_leave_the_ranking_alone(tmp_path: Path) -> None:
    study = SweepStudy.create(tmp_path, made_up.sweep("budget.trials=2", "pruner=none", "finals.trials=2"))
    for kid in (1.0, 2.0):
        ticket = study.next_ticket()
        assert ticket is not None
        study.report(ticket.number, made_up.history(5.0, kid, kid + 1))
    worse = made_up.rung(2000, 9.0).scores
    final = Final(2000, worse, made_up.rung(2000, 9.5).scores, 1.5)
    study.record_final(0, final)
    study.fail_final(1, "no checkpoint")
    again = SweepStudy.open(tmp_path)
    assert again is not None
    found = status_of(again)
    assert [record.number for record in found.ranking] == [0, 1]
    first, second = found.records
    assert (first.final, first.final_fault) == (final, None)
    assert (second.final, second.final_fault) == (None, "no checkpoint")
    assert found.finals_missing == []
    assert found.to_json()["finals"] == [{"trial": 0, **final.to_json()}, {"trial": 1, "fault": "no checkpoint"}]
    line = final_line(first)
    kid, fid = "kid 9.000 ± 0.010 (clean-fid 9.500 ± 0.010)", "fid 900 (clean-fid 950)"
    assert line == f"final: trial   0       2 kimg  {kid}  {fid}  on 100 images"
    assert final_line(second) == "final: trial   1  not scored: no checkpoint"


def test_without_finals_there_are_no_finalists(tmp_path: Path) -> None:
    study = SweepStudy.create(tmp_path, made_up.sweep("budget.trials=1", "finals.trials=0"))
    assert study.next_ticket() is not None
    study.report(0, made_up.history(3.0, 1.0, 2.0))
    found = status_of(study)
    assert (found.state, found.finalists, found.finals_missing) == ("complete", [], [])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, cache_dir: Path, mnist_mini_lenet: object) -> Path:
    """A folder in which a sweep with two finals has run to its end; its output is in `output.txt`."""
    folder = tmp_path_factory.mktemp("finals")
    sweeps.prepare(folder, cache_dir, TEXT)
    done = sweeps.gansweep("launch", "tiny.yaml", cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    (folder / "output.txt").write_text(done.stdout)
    return folder


def finals_of(folder: Path) -> dict[int, Final]:
    """The finals that the study has, by trial."""
    return {each.number: each.final for each in sweeps.records(folder / "runs" / "tiny") if each.final}


def finalists(folder: Path) -> list[int]:
    """The two best trials by the scores of their rungs."""
    scored = [record for record in sweeps.records(folder / "runs" / "tiny") if record.best]
    return [record.number for record in sorted(scored, key=lambda r: r.best.scores["kid"].value if r.best else 0)][:2]


def assert_tracked_once(folder: Path) -> None:
    """Each final is in the run of its trial, with one value per number, and in no other run."""
    client, finals = MlflowClient(mlflow_uri(folder / "runs")), finals_of(folder)
    for run in client.search_runs([client.get_experiment_by_name("tiny").experiment_id]):
        final = finals.get(int(run.data.tags.get("gansweep.trial", -1)))
        names = {name for name in run.data.metrics if name.startswith("final_")}
        if final is None:
            assert names == set()
            continue
        expected = {f"final_{name}": final.ours[name].value for name in BOTH}
        expected |= {f"final_cleanfid_{name}": final.official[name].value for name in BOTH}
        assert names == {*expected, "final_kid_se"}
        for name, value in expected.items():
            points = [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, name)]
            assert points == [(final.images, pytest.approx(value))]


@pytest.mark.slow
def test_the_best_checkpoints_have_both_scores(finished: Path, cache_dir: Path) -> None:
    records, finals = sweeps.records(finished / "runs" / "tiny"), finals_of(finished)
    assert sorted(finals) == sorted(finalists(finished))
    for number, final in finals.items():
        best = records[number].best
        assert best is not None
        assert final.images == best.images
        checkpoint = finished / "runs/tiny/store/trials" / f"{number:05d}" / "checkpoints" / folder_name(best.images)
        data, lenet = DatasetSpec(name="mnist-mini"), ExtractorSpec(name="lenet")
        assert final.ours == score(checkpoint, data, lenet, BOTH, 150, cache_dir).scores
        assert final.official["fid"].value == pytest.approx(final.ours["fid"].value, rel=1e-3)
        assert {each.n for each in (*final.ours.values(), *final.official.values())} == {150}


@pytest.mark.slow
def test_finals_are_shown_wherever_a_person_looks(finished: Path) -> None:
    records, finals = sweeps.records(finished / "runs" / "tiny"), finals_of(finished)
    lines = [final_line(records[number]) for number in finalists(finished)]
    printed = (finished / "output.txt").read_text()
    told = sweeps.in_process("status", "tiny", cwd=finished).stdout
    page = (finished / "runs" / "tiny" / "report.html").read_text()
    for number, line in zip(finalists(finished), lines, strict=True):
        assert printed.count(line) == 2, "as it is scored, and at the end"
        assert line in told
        assert f"<tr><td>{number}</td><td>{finals[number].images / 1000:g}</td><td>fid</td>" in page
    assert [each["trial"] for each in sweeps.status("tiny", finished)["finals"]] == finalists(finished)
    assert_tracked_once(finished)


@pytest.mark.slow
def test_launching_again_scores_nothing_twice(finished: Path) -> None:
    before = finals_of(finished)
    again = sweeps.in_process("launch", "tiny.yaml", cwd=finished)
    assert again.returncode == 0, again.stderr
    assert "is complete" in again.stdout
    assert finals_of(finished) == before
    assert_tracked_once(finished)


def without_check(line: str) -> str:
    """A journal's line as an earlier release wrote it, so that the next one need not follow it."""
    return json.dumps({key: value for key, value in json.loads(line).items() if key != CHECK}, separators=(",", ":"))


def without_finals(finished: Path, folder: Path, lost: Sequence[int]) -> Path:
    """A copy of the sweep whose driver died before the study had the finals of the trials `lost`."""
    shutil.copytree(finished, folder, dirs_exist_ok=True)
    journal = folder / "runs" / "tiny" / JOURNAL
    kept = [
        without_check(line)
        for line in journal.read_text().splitlines()
        if not any(f'"final:{number}"' in line for number in lost)
    ]
    journal.write_text("\n".join(kept) + "\n")
    return folder


@pytest.mark.slow
def test_a_resume_scores_the_finals_that_are_missing_and_no_others(finished: Path, tmp_path: Path) -> None:
    first, second = finalists(finished)
    folder = without_finals(finished, tmp_path, [second])
    before, whole = finals_of(folder), finals_of(finished)
    assert list(before) == [first]
    assert f"finals missing: trials {second}" in sweeps.in_process("status", "tiny", cwd=folder).stdout
    resumed = sweeps.gansweep("resume", "tiny", cwd=folder)
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    after = finals_of(folder)
    assert after[first] == before[first], "its seconds, too, are those of the first time"
    assert after[second].ours == whole[second].ours
    assert after[second].official == whole[second].official
    assert_tracked_once(folder)


@pytest.mark.slow
def test_a_final_that_fails_is_said_with_its_reason_and_ends_nothing(finished: Path, tmp_path: Path) -> None:
    first, second = finalists(finished)
    folder = without_finals(finished, tmp_path, [first, second])
    images = finals_of(finished)[first].images
    state = folder / "runs/tiny/store/trials" / f"{first:05d}" / "checkpoints" / folder_name(images) / STATE
    state.write_bytes(state.read_bytes()[:-1])
    resumed = sweeps.gansweep("resume", "tiny", cwd=folder)
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    assert "Traceback" not in resumed.stdout + resumed.stderr
    assert list(finals_of(folder)) == [second]
    fault = sweeps.records(folder / "runs" / "tiny")[first].final_fault
    assert fault is not None
    assert str(Path("checkpoints") / folder_name(images)) in fault
    assert f"final: trial {first:>3}  not scored: {fault}" in resumed.stdout
    assert sweeps.status("tiny", folder)["finals"][0] == {"trial": first, "fault": fault}
    assert folder_name(images) in (folder / "runs" / "tiny" / "report.html").read_text()
    again = sweeps.in_process("launch", "tiny.yaml", cwd=folder)
    assert "is complete" in again.stdout


@pytest.mark.slow
@pytest.mark.faults
@pytest.mark.parametrize(
    ("number", "code", "send"),
    [(signal.SIGINT, 130, os.kill), (signal.SIGTERM, 143, os.kill), (signal.SIGHUP, 129, os.killpg)],
)
def test_one_signal_during_the_finals_stops_cleanly_and_resume_goes_on(
    number: int, code: int, send: Callable[[int, int], None], tmp_path: Path, cache_dir: Path
) -> None:
    sweeps.prepare(tmp_path, cache_dir, TEXT.replace("samples: 150", "samples: 20000"))
    driver = sweeps.start("launch", "tiny.yaml", cwd=tmp_path)
    assert driver.stdout is not None
    said = ""
    for line in driver.stdout:
        said += line
        if line.startswith("finals: "):
            break
    send(driver.pid, number)
    output, _ = driver.communicate(timeout=600)
    assert driver.returncode == code, said + output
    assert "finals missing" in output
    assert not any(record.final_fault for record in sweeps.records(tmp_path / "runs" / "tiny"))
    assert "gansweep resume tiny" in output
    assert "Traceback" not in output
    sweeps.wait_for_the_last_process(driver)
    resumed = sweeps.gansweep("resume", "tiny", cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    assert sorted(finals_of(tmp_path)) == sorted(finalists(tmp_path))
    assert_tracked_once(tmp_path)
