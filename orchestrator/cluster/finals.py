"""The best trials scored once more: on as many images as published scores, by our procedure and by clean-fid's."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from orchestrator.cluster.trial import prepare_scoring
from orchestrator.store import store_of
from search_spaces.sweep import parse_sweep
from trainers.evaluation.official import official_scores
from trainers.evaluation.scores import Score
from trainers.run import pick_device
from trainers.tools.score import from_checkpoint

METRICS = ("fid", "kid")


@dataclass(frozen=True)
class Final:
    """The scores of one set of images, made by the generator of a trial's best rung."""

    images: int
    """Images that the generator had been trained on."""
    ours: dict[str, Score]
    """`fid` and `kid` as at every rung."""
    official: dict[str, Score]
    """The same by clean-fid."""
    seconds: float
    """Of making and scoring the images."""

    def to_json(self) -> dict[str, Any]:
        """As plain JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Final:
        both = {key: {name: Score(**score) for name, score in record[key].items()} for key in ("ours", "official")}
        return cls(**{**record, **both})


def score_final(sweep_text: str, folder: Path, cache: Path, number: int, images: int) -> Final:
    """Scores the checkpoint that trial `number` of the sweep in `folder` has at `images`.

    The images are made from the noise of the rungs' scores, of which there is more here. Raises InputError where the
    checkpoint is missing or damaged.
    """
    start, sweep, device = time.perf_counter(), parse_sweep(sweep_text), pick_device()
    train, evaluator = prepare_scoring(sweep, cache, device)
    with store_of(sweep, folder).at(number, images) as checkpoint:
        made = from_checkpoint(checkpoint, train, sweep.finals.samples, evaluator.seed)
    ours = evaluator(made.images, made.labels, metrics=METRICS).scores
    official = official_scores(
        made.images,
        evaluator.extractor,
        sweep.score.extractor,
        evaluator.reference,
        cache,
        evaluator.seed,
        device,
    )
    return Final(images, ours, official, time.perf_counter() - start)
