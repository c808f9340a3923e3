"""A sweep that release e8b0d9e wrote is shown as that release showed it, resumed, and scored.

The sweep was given 6 trials and 12 more. Its driver was killed when trial 0 was complete with a final score, 1 to 9
were pruned, 10 to 14 paused, and 15 and 16 running, each with a checkpoint that the study did not know yet.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cluster.runs import new_run, preparation
from orchestrator.study.formats import NOTES
from orchestrator.study.study import SweepStudy
from tests.support import earlier, sweeps
from tests.support.newer import sitecustomize as newer
from trainers import checkpoint
from trainers.data.images import ImageData
from trainers.errors import InputError
from trainers.evaluation import classifier, lenet
from trainers.formats import MANIFEST, VERSION
from trainers.rungs import Rung

CLI = "orchestrator.cli"
BEST = {
    "trial": 0,
    "metric": "kid",
    "value": 521.2914473559077,
    "params": {
        "system": "narman-cgan",
        "g_lr": 0.001216284474150627,
        "d_lr": 0.006928638962181737,
        "smoothing": "none",
        "width": 0.06,
        "latent": 16,
        "batch": 20,
    },
}
STATES = ["complete", *["pruned"] * 9, *["paused"] * 5, *["running"] * 2]
PAUSED, RUNNING = range(10, 15), (15, 16)
FIRST_RUNG = 200


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sweep below `runs`, as it was left; nobody writes to it."""
    folder = tmp_path_factory.mktemp("written")
    earlier.unpack("e8b0d9e", folder / "runs")
    return folder


@pytest.fixture(scope="module")
def resumed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a release with one more field in its configuration has resumed the sweep."""
    folder = tmp_path_factory.mktemp("resumed")
    earlier.unpack("e8b0d9e", folder / "runs")
    settings = {"PYTHONPATH": f"{Path(newer.__file__).parent}:{sweeps.REPOSITORY}"}
    done = sweeps.gansweep("resume", "kept", cwd=folder, module=CLI, settings=settings, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "damaged" not in done.stdout + done.stderr
    return folder


def study_in(folder: Path) -> SweepStudy:
    study = SweepStudy.open(folder / "runs" / "kept")
    assert study is not None
    return study


def newest_checkpoint(folder: Path, number: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Header and manifest."""
    found = checkpoint.newest(folder / "runs/kept/store/trials" / f"{number:05d}" / "checkpoints")
    assert found is not None
    return checkpoint.read(found)[1:]


def told(folder: Path, *arguments: str) -> str:
    done = sweeps.gansweep(*arguments, cwd=folder, module=CLI)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_its_status_is_what_its_own_release_said(written: Path) -> None:
    found = json.loads(told(written, "status", "kept", "--json"))
    assert found["state"] == "interrupted"
    assert found["trials"] == {"complete": 1, "pruned": 9, "running": 2, "paused": 5, "failed": 0}
    assert set(found["failures"].values()) == {0}
    assert found["budget"]["limits"] == {"trials": 18}
    assert found["budget"]["added"] == 12
    assert found["budget"]["spent"]["gpu_hours"] == 0.001614430807500011
    assert found["budget"]["ended"] is None
    assert found["best"] == BEST
    assert found["scoring_share"] == 0.8691734412099849


def test_its_trials_are_listed_with_their_states_and_scores(written: Path) -> None:
    lines = told(written, "status", "kept").splitlines()
    assert lines[0].startswith("kept: interrupted; 17 of 18 trials (12 added): 1 complete, 9 pruned")
    trials = [line.split() for line in lines if line.startswith("  trial")]
    assert [words[1:3] for words in trials] == [[str(number), state] for number, state in enumerate(STATES)]
    assert "kid 521.29 ± 0.74  fid 627.8" in lines[1]


def test_its_report_has_its_best_trial_and_its_final_score(written: Path, tmp_path: Path) -> None:
    told(written, "report", "kept", "-o", str(tmp_path / "report.html"))
    page = (tmp_path / "report.html").read_text()
    assert "521.29 ± 0.74" in page
    final = study_in(written).record(0).final
    assert final is not None
    assert (final.images, final.ours["kid"].n) == (1200, 300)
    assert final.ours["kid"].value == pytest.approx(521.50, abs=0.005)
    assert final.official["kid"].value == pytest.approx(525.9, abs=0.05)


def test_what_it_learnt_from_an_earlier_sweep_is_still_known(written: Path) -> None:
    assert study_in(written).has_prior_trials
    assert len(study_in(written)._sampling.prior_trials) == 3


@pytest.mark.parametrize("number", PAUSED)
def test_a_paused_trial_goes_on_from_its_checkpoint(written: Path, tmp_path: Path, number: int) -> None:
    study = study_in(written)
    run = new_run(study.sweep, written / "runs" / "cache", study.record(number).params)
    assert run.restore(written / "runs/kept/store/trials" / f"{number:05d}")
    assert run.history == list(study.record(number).rungs)
    assert run.trainer.images == FIRST_RUNG
    if number == PAUSED[0]:
        assert run.next_rung().images == run.rungs[1]


def test_a_checkpoint_of_it_is_scored_as_it_was(written: Path) -> None:
    folder = Path("runs/kept/store/trials/00000/checkpoints/0000001200")
    arguments = ("--dataset", "mnist-mini", "--samples", "200", "--metrics", "kid", "--json")
    found = json.loads(told(written, "score", str(folder), *arguments))
    assert [(score["metric"], score["n"]) for score in found] == [("kid", 200)]
    assert found[0]["value"] == pytest.approx(BEST["value"], rel=1e-4)


def test_it_is_resumed_to_its_exact_number_of_trials(resumed: Path, written: Path) -> None:
    before, after = study_in(written).records(), study_in(resumed).records()
    assert len(after) == 18
    assert {record.state for record in after} == {"complete", "pruned"}
    assert [record.params for record in after[:17]] == [record.params for record in before]
    assert [record.rungs[: len(old.rungs)] for old, record in zip(before, after, strict=False)] == [
        record.rungs for record in before
    ]
    assert after[0].final == before[0].final
    assert all(not record.failures for record in after)
    assert json.loads(told(resumed, "status", "kept", "--json"))["best"] == BEST


def test_the_trials_that_were_running_trained_nothing_again(resumed: Path, written: Path) -> None:
    for number in RUNNING:
        (_, manifest), record = newest_checkpoint(written, number), study_in(resumed).record(number)
        assert [record.rungs[0]] == [Rung.from_json(rung) for rung in manifest["history"]]


def test_the_field_of_the_later_release_was_there(resumed: Path) -> None:
    header, _ = newest_checkpoint(resumed, 17)
    assert header["config"][newer.FIELD] == newer.VALUE
    assert newer.FIELD not in newest_checkpoint(resumed, PAUSED[0])[0]["config"]


def test_its_store_says_whose_it_is_from_then_on(resumed: Path, written: Path) -> None:
    assert not (written / "runs/kept/store/study").exists()
    assert json.loads((resumed / "runs/kept/store/study").read_text())["id"] == study_in(written).id


def test_after_that_it_has_this_release_s_formats_and_keeps_its_defaults(resumed: Path) -> None:
    study = study_in(resumed)
    assert study._study.user_attrs[VERSION] == NOTES.newest
    assert study.sweep.defaults["narman-cgan"]["schedule"] == "exponential"
    assert (resumed / "runs/kept/sweep.yaml").read_text() == study.sweep.normalised()
    assert newest_checkpoint(resumed, 17)[1][VERSION] == MANIFEST.newest


def test_its_inputs_are_what_its_scores_tell_and_are_recorded_when_it_is_resumed(written: Path, resumed: Path) -> None:
    (told,), (recorded,) = study_in(written).inputs.known, study_in(resumed).inputs.known
    assert (told.recorded, recorded.recorded) == (False, True)
    assert (told.extractor, told.reference) == (recorded.extractor, recorded.reference)
    (kept,) = (resumed / "runs/kept/store/extractors").iterdir()
    (cached,) = (written / "runs/cache").glob("lenet-*.safetensors")
    assert kept.name == f"{recorded.weights}.safetensors"
    assert kept.read_bytes() == cached.read_bytes()


def test_another_extractor_than_that_of_its_scores_is_refused(
    written: Path, tmp_path: Path, mnist_mini: tuple[ImageData, ImageData], monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    classifier.trained(replace(lenet.RECIPE, steps=(3, 3)), *mnist_mini, cache)
    study = study_in(written)
    with pytest.raises(InputError, match=f"the extractor is another.* it has {study.inputs.known[0].extractor};"):
        preparation(study, cache)()
    # If the cache has both, the one of its scores is taken.
    shutil.copytree(written / "runs/cache", cache, dirs_exist_ok=True)
    classifier.trained(replace(lenet.RECIPE, steps=(3, 3)), *mnist_mini, tmp_path / "other")
    for path in (tmp_path / "other").glob("lenet-*"):
        shutil.copy(path, cache / path.name.replace(path.stem, f"{path.stem}-0123456789abcdef"))
    monkeypatch.setattr("orchestrator.cluster.runs.keep_weights", lambda *_: None)  # nobody writes to `written`
    assert preparation(study, cache)().inputs.extractor == study.inputs.known[0].extractor
