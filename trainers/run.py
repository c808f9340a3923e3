"""One training run from rung to rung: advance, score, save. The same code serves a shell and a sweep's trial."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainers import checkpoint, monitor, regularizers
from trainers.config import Config
from trainers.data import samples
from trainers.data.batches import seeded
from trainers.data.fit import fitted
from trainers.data.images import ImageData
from trainers.evaluation.evaluator import Evaluation, Evaluator
from trainers.evaluation.extractors import Features
from trainers.gan import System
from trainers.parallel.batch_norm import BatchNorm
from trainers.parallel.group import ALONE, Parallel
from trainers.rungs import Rung, best_rung, history_of, worth_keeping
from trainers.trainer import Trainer


@dataclass
class Run:
    """A run over the rungs `rungs` (images, increasing), scored on `sample_count` images from fixed noise.

    If system and data differ in shape, the data are fitted to the system for training, and its samples are fitted to
    the data for scoring, so that the scores of all systems on these data compare.

    `history` holds every rung passed so far, those before a restart included.

    If several processes train together (`parallel`), the first one passes rungs, scores and saves as a single one does.
    While it is in `next_rung` the others call `follow`, while it is in `measure_again` they call `follow_measure`, and
    after it has loaded a checkpoint all call `share`. The others hold no history.
    """

    system_id: str
    system: System
    config: Config
    data: ImageData
    evaluator: Evaluator
    rungs: Sequence[int]
    sample_count: int
    device: str = "cpu"
    history: list[Rung] = field(default_factory=list)
    grid: NDArray[np.uint8] | None = None
    """Samples of the last rung as one picture."""
    parallel: Parallel = ALONE
    batch_norm: BatchNorm = "synchronised"

    def __post_init__(self) -> None:
        self.trainer = Trainer(
            self.system,
            self.config,
            self.data.fitted(self.system.shape),
            self.device,
            parallel=self.parallel,
            batch_norm=self.batch_norm,
        )
        many = self.sample_count >= monitor.SAMPLES_PER_CLASS * self.data.classes
        even = self.system.conditional or monitor.balanced(self.data.labels, self.data.classes)
        self._shares_compare, self._accuracies_compare = many and even, many

    @property
    def finished(self) -> bool:
        """Whether the last rung is reached, or the run has diverged."""
        return bool(self.history) and (
            self.history[-1].images >= self.rungs[-1] or self.history[-1].diverged is not None
        )

    def best(self) -> Rung | None:
        """The rung with the best value of the evaluator's first metric; None before the first sound rung."""
        return best_rung(self.history, self.evaluator.metrics[0])

    @property
    def target(self) -> int:
        """Images at which the next rung lies. Raises StopIteration if none is left."""
        return next(images for images in self.rungs if images > self.trainer.images)

    def next_rung(self) -> Rung:
        """Trains to the next rung and scores it."""
        start = time.perf_counter()
        losses = {**self.trainer.advance(self.target), **self._clipped()}
        trained = time.perf_counter()
        bad = _diverged(losses)
        seen, diversity, repeats = Evaluation({}, None, None), None, None
        if not bad:
            images, labels = self.trainer.sample(self.sample_count, self.evaluator.seed)
            self.grid = samples.grid(images)
            images = fitted(images, self.data.shape)
            seen = self.evaluator(images, labels, self.system.conditional, extract=self._extract)
            diversity, repeats = self._diversity(images, labels)
        rung = Rung(
            images=self.trainer.images,
            scores=seen.scores,
            losses=losses,
            train_seconds=trained - start,
            score_seconds=time.perf_counter() - trained,
            diverged=", ".join(bad) or None,
            diversity=diversity,
            repeats=repeats,
            class_shares=seen.class_shares,
            per_class_accuracy=seen.per_class_accuracy,
        )
        verdicts = monitor.inspect([*map(self._observed, (*self.history, rung))], self.config, self.data.classes)
        rung = replace(rung, verdicts=tuple(f"{verdict.kind}: {verdict.evidence}" for verdict in verdicts))
        self.history.append(rung)
        return rung

    def may_measure(self, samples: int) -> bool:
        """Whether `measure_again` would score anything: the last rung has scores, on fewer than `samples` images."""
        score = self.history[-1].scores.get(self.evaluator.metrics[0]) if self.history else None
        return score is not None and score.n < samples

    def measure_again(self, samples: int) -> bool:
        """Scores the last rung again on `samples` images, by the metric that decides; False if it has as many already.

        The other scores stay, since not all of them compare between different numbers of images.
        """
        if not self.may_measure(samples):
            return False
        rung, deciding = self.history[-1], self.evaluator.metrics[0]
        start = time.perf_counter()
        images, labels = self.trainer.sample(samples, self.evaluator.seed)
        images = fitted(images, self.data.shape)
        again = self.evaluator(images, labels, self.system.conditional, (deciding,), self._extract)
        seconds = rung.score_seconds + time.perf_counter() - start
        self.history[-1] = replace(rung, scores={**rung.scores, **again.scores}, score_seconds=seconds)
        return True

    def follow(self, images: int) -> None:
        """The part of another process in the first one's `next_rung`, whose target is `images`."""
        if not _diverged(self.trainer.advance(images)):
            self.follow_measure(self.sample_count)

    def follow_measure(self, samples: int) -> None:
        """The part of another process in the first one's `measure_again`; called only if that one `may_measure`."""
        images, _ = self.trainer.sample(samples, self.evaluator.seed)
        self._extract(fitted(images, self.data.shape))

    def share(self) -> None:
        """Gives every process the training state of the first one, which alone reads checkpoints."""
        if self.parallel.size > 1:
            first = self.parallel.rank == 0
            state = self.parallel.broadcast_state(self.trainer.state() if first else None)
            if not first:
                self.trainer.load_state(*state)

    def _extract(self, images: Tensor) -> Features:
        return self.parallel.spread(self.evaluator.extractor, images)

    def _observed(self, rung: Rung) -> monitor.Observation:
        """What the monitor is shown of `rung`."""
        conditional, classes = self.system.conditional, self.data.classes
        # The trainer draws uniformly among the first `drawn_classes`; counting its draws would add nothing.
        drawn = range(min(self.config.drawn_classes or classes, classes))
        return monitor.Observation(
            images=rung.images,
            losses=rung.losses,
            scores=rung.scores,
            diversity=rung.diversity,
            repeats=rung.repeats,
            class_shares=rung.class_shares if self._shares_compare else None,
            per_class_accuracy=rung.per_class_accuracy if self._accuracies_compare else None,
            drawn_classes=tuple(drawn) if conditional else None,
        )

    def _clipped(self) -> dict[str, float]:
        config = self.config
        if not config.controls("clip"):
            return {}
        share = regularizers.clipped_share(self.trainer.nets["d"], config.clip_value, config.clip_scope)
        return {"clipped_share": share}

    def _diversity(self, images: Tensor, labels: Tensor) -> tuple[float | None, float | None]:
        # Data may be in the order of the classes, so that the first images are all of one class.
        chosen = torch.randperm(len(self.data.images), generator=seeded(0, 4))[: monitor.REPEATS_COMPARED]
        real, labels_of_real = self.data.images[chosen], self.data.labels[chosen]
        pairs = (labels, labels_of_real) if self.system.conditional else None
        return monitor.diversity(images, real, pairs), monitor.repeats(images, real)

    def save(self, folder: Path, last: int = 2, best: int = 1) -> Path:
        """Writes samples and a checkpoint of the last rung below `folder`, and returns the checkpoint's folder.

        Keeps the `last` newest checkpoints and those `worth_keeping`. Raises OSError, with what was there still whole.
        """
        rung, name = self.history[-1], checkpoint.folder_name(self.history[-1].images)
        if self.grid is not None and rung.scores:
            samples.save_png(self.grid, folder / "samples" / f"{name}.png")
        tensors, header = self.trainer.state()
        manifest = {**self._identity(), "history": [past.to_json() for past in self.history]}
        checkpoint.write(folder / "checkpoints" / name, tensors, header, manifest)
        checkpoint.prune(folder / "checkpoints", worth_keeping(self.history, self.evaluator.metrics[0], best), last)
        return folder / "checkpoints" / name

    def restore(self, folder: Path) -> bool:
        """Continues from the newest whole checkpoint below `folder`; False if there is none. Raises as `load`."""
        found = checkpoint.newest(folder / "checkpoints")
        if found is not None:
            self.load(found)
        return found is not None

    def load(self, folder: Path) -> None:
        """Continues from the checkpoint in `folder`.

        Raises ValueError if it is of another system, configuration or data, or was scored in another way, since the
        scores of one history must compare; InputError if a newer program wrote it; CheckpointError if it is damaged, or
        no checkpoint of this run's networks.
        """
        tensors, header, manifest = checkpoint.read(folder)
        for key, own in self._identity().items():
            if (found := manifest.get(key)) != own:
                raise ValueError(f"the checkpoint is of {key} {found}, not of {own}")
        try:
            history = history_of(manifest)
        except ValueError as error:
            raise checkpoint.CheckpointError(f"{folder / checkpoint.MANIFEST}: {error}") from error
        try:
            self.trainer.load_state(tensors, header, str(folder))
        except RuntimeError as error:
            raise checkpoint.CheckpointError(f"{folder / checkpoint.STATE}: {error}") from error
        if self.trainer.images != history[-1].images:
            text = f"is after {self.trainer.images} images, but its last rung after {history[-1].images}"
            raise checkpoint.CheckpointError(f"{folder}: {text}")
        self.history = history

    def _identity(self) -> dict[str, Any]:
        """What a checkpoint must share with this run, besides the configuration.

        A new key needs a migration in `formats.MANIFEST` that gives older checkpoints the value that held for them.
        """
        return {
            "system": self.system_id,
            "data": self.data.sha256,
            "samples": self.sample_count,
            "metrics": list(self.evaluator.metrics),
            "extractor": self.evaluator.extractor.id,
            "reference": self.evaluator.reference.id,
        }


def _diverged(losses: dict[str, float]) -> list[str]:
    """The losses of a rung that are not finite, in words. They are means over all processes, so all agree on them."""
    return [f"{name} is {value}" for name, value in losses.items() if not math.isfinite(value)]


def pick_device() -> str:
    """`cuda` if a GPU can be used, else `cpu`."""
    return "cuda" if torch.cuda.is_available() else "cpu"
