"""A study knows its data, extractor and reference: recorded at its first launch, or else told by its scores."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import torch

from orchestrator.study.inputs import INPUTS, Inputs, OtherInputsError, images_of, inputs_of
from orchestrator.study.records import Final
from orchestrator.study.study import SweepStudy
from tests.support import made_up
from trainers.data.images import ImageData
from trainers.data.spec import DatasetSpec
from trainers.errors import InputError
from trainers.evaluation.evaluator import Evaluator
from trainers.rungs import Rung


def images(split: str, count: int = 6, first: int = 0) -> ImageData:
    pixels = torch.arange(count * 12, dtype=torch.uint8).view(count, 3, 2, 2)
    pixels[0, 0, 0, 0] = first
    return ImageData(pixels, torch.arange(count) % 2, 2, "small", split)


TRAIN, TEST = images("train"), images("test", 2)
NETWORK = "lenet-0123456789ab-float32-asis"


def evaluator(network: str = NETWORK, data: ImageData = TRAIN) -> Evaluator:
    extractor = SimpleNamespace(id=network, sha256="0123456789ab" + 52 * "0")
    return cast(Evaluator, SimpleNamespace(extractor=extractor, reference=SimpleNamespace(id=data.id)))


WHOLE = inputs_of(TRAIN, TEST, evaluator())


@pytest.fixture
def study(tmp_path: Path) -> SweepStudy:
    return SweepStudy.create(tmp_path, made_up.sweep("pruner=none"))


def again(study: SweepStudy) -> SweepStudy:
    found = SweepStudy.open(study.folder)
    assert found is not None
    return found


def scored(rung: Rung, network: str = NETWORK, data: ImageData = TRAIN) -> Rung:
    own = {name: replace(each, extractor=network, reference=data.id) for name, each in rung.scores.items()}
    return replace(rung, scores=own)


def test_recorded_inputs_are_read_by_others_and_never_replaced(study: SweepStudy) -> None:
    assert study.inputs.known == ()
    recorded = replace(WHOLE, skipped=("a/1.png", "b/é.png"))
    study.inputs.record(recorded)
    study.inputs.record(replace(WHOLE, extractor="another"))
    (found,) = again(study).inputs.known
    assert found == recorded
    assert found.recorded
    assert json.loads(json.dumps(WHOLE.to_json()))["format"] == 1


def test_inputs_of_a_newer_program_are_refused(study: SweepStudy) -> None:
    study._notes.write(INPUTS, {**WHOLE.to_json(), "format": 2})
    with pytest.raises(InputError, match=r"format 2.*install a newer gansweep"):
        _ = again(study).inputs.known


def test_the_same_images_are_accepted_and_others_are_refused_with_what_there_was_and_is() -> None:
    WHOLE.check_data(TRAIN, TEST)
    WHOLE.check_data(replace(TRAIN, name="elsewhere"), TEST)
    WHOLE.check_scoring(evaluator())
    more, changed = images("train", 7), images("test", 2, first=9)
    with pytest.raises(OtherInputsError) as caught:
        WHOLE.check_data(more, TEST)
    for words in ("the train images", f"6 images, sha256 {TRAIN.sha256[:12]}", f"7 images, sha256 {more.sha256[:12]}"):
        assert words in str(caught.value)
    with pytest.raises(OtherInputsError, match=f"the test images.*2 images.*there are {images_of(changed)} now"):
        WHOLE.check_data(TRAIN, changed)
    relabelled = replace(TRAIN, labels=TRAIN.labels.flip(0))
    with pytest.raises(OtherInputsError, match="the train images"):
        WHOLE.check_data(relabelled, TEST)


def test_another_extractor_is_refused_with_both_names() -> None:
    with pytest.raises(OtherInputsError, match=rf"score.extractor: .*{NETWORK}; there is lenet-ffff"):
        WHOLE.check_scoring(evaluator("lenet-ffffffffffff-float32-asis"))


def test_the_scores_of_an_earlier_release_tell_data_extractor_and_reference(study: SweepStudy) -> None:
    study.next_ticket()
    study.report(0, [scored(made_up.rung(1000, 3.0)), scored(made_up.rung(2000, 2.0))])
    (found,) = again(study).inputs.known
    assert not found.recorded
    assert found.weights == "0123456789ab"
    found.check_data(TRAIN, images("test", 5))
    found.check_scoring(evaluator())
    with pytest.raises(OtherInputsError, match=rf"it has sha256 {TRAIN.sha256[:12]}; there are 7 images"):
        found.check_data(images("train", 7), TEST)
    with pytest.raises(OtherInputsError, match="the extractor is another"):
        found.check_scoring(evaluator("lenet-ffffffffffff-float32-asis"))
    study.inputs.record(WHOLE)
    assert again(study).inputs.known == (WHOLE,)


@pytest.mark.parametrize("where", ["rung", "final"])
def test_scores_that_do_not_compare_are_never_all_accepted(study: SweepStudy, where: str) -> None:
    study.next_ticket()
    study.report(0, [scored(made_up.rung(1000, 3.0)), scored(made_up.rung(3000, 2.0))])
    later = images("train", 7)
    if where == "rung":
        study.next_ticket()
        study.report(1, [scored(made_up.rung(1000, 1.0), data=later)])
    else:
        scores = scored(made_up.rung(3000, 1.0), data=later).scores
        study.record_final(0, Final(3000, scores, {}, 1.0))
    found = again(study).inputs.known
    assert len(found) == 2
    for train in (TRAIN, later):
        assert refusals(found, train) == 1


def refusals(known: tuple[Inputs, ...], train: ImageData) -> int:
    count = 0
    for each in known:
        try:
            each.check_data(train, TEST)
        except OtherInputsError:
            count += 1
    return count


def test_a_diverged_trial_tells_nothing(study: SweepStudy) -> None:
    study.next_ticket()
    study.report(0, [made_up.rung(1000, 1.0, diverged="loss_g is nan")])
    assert again(study).inputs.known == ()


def test_another_place_of_the_data_is_kept_for_whoever_comes_next(study: SweepStudy) -> None:
    moved = study.sweep.dataset.model_copy(update={"path": Path("/elsewhere")})
    budget = study.sweep.budget.model_copy(update={"trials": 9})
    study.limits.change_budget(budget)
    study.limits.move_data(moved)
    study.upgrade()
    assert study.sweep.dataset == again(study).sweep.dataset == moved
    assert study.sweep.budget == again(study).sweep.budget == budget
    again(study).upgrade()
    assert again(study).sweep.dataset == moved != DatasetSpec(name="mnist-mini")
