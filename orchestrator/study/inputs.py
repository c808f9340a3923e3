"""What the trials of a study are trained and scored with, as at its first launch: data, extractor and reference.

Scores compare only if all of it is the same, so a driver refuses to go on with anything else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from orchestrator.study.notes import StudyNotes
from orchestrator.study.records import TrialRecord
from trainers.data.spec import DatasetSpec
from trainers.errors import InputError
from trainers.evaluation.scores import Score, weights_in
from trainers.formats import VERSION, Format

if TYPE_CHECKING:
    from trainers.data.images import ImageData
    from trainers.evaluation.evaluator import Evaluator

#: The note, and its format.
INPUTS = "inputs"
FORMAT = Format()
#: Keys of `dataset` that say where the files are; they may change as long as the images stay the same.
PLACE = ("path", "download", "verify")
#: Digits of a sha256 that messages show, and that ids of extractors and references have.
DIGITS = 12


class OtherInputsError(InputError):
    """Data, extractor or reference are not those of the study; the message says what it had and what there is."""


@dataclass(frozen=True)
class Images:
    """The images of a split."""

    sha256: str
    """`ImageData.sha256`; its first DIGITS digits if only a score is known."""
    count: int | None = None
    """Number of images; None if only a score is known."""

    def __str__(self) -> str:
        digits = f"sha256 {self.sha256[:DIGITS]}"
        return digits if self.count is None else f"{self.count:,} images, {digits}"


@dataclass(frozen=True)
class Inputs:
    """The inputs of a study, or what a score tells about them."""

    train: Images
    test: Images | None
    """None if only a score is known."""
    extractor: str
    """Its id."""
    weights: str
    """The sha256 of the file of the extractor's weights; the first DIGITS digits if only a score is known."""
    reference: str
    """Its id."""
    skipped: tuple[str, ...] = ()
    """Damaged files that were passed over, since `skip_damaged` is set."""

    @property
    def recorded(self) -> bool:
        """Whether the study recorded them, so that all is known and the store has the extractor if it was trained."""
        return self.test is not None

    def check_data(self, train: ImageData, test: ImageData) -> None:
        """Raises OtherInputsError if these are other images, as the trials see them before they are fitted."""
        for known, data in ((self.train, train), (self.test, test)):
            if known is not None and not data.sha256.startswith(known.sha256):
                raise OtherInputsError(
                    f"dataset: the {data.split} images are others than those of the study: it has {known}; "
                    f"there are {images_of(data)} now"
                )

    def check_scoring(self, evaluator: Evaluator) -> None:
        """Raises OtherInputsError if `evaluator` has another extractor or reference, so that scores do not compare."""
        extractor, reference = evaluator.extractor.id, evaluator.reference.id
        for name, known, now in (
            ("score.extractor: the extractor", self.extractor, extractor),
            ("dataset: the reference", self.reference, reference),
        ):
            if known != now:
                raise OtherInputsError(f"{name} is another than that of the study: it has {known}; there is {now} now")

    def to_json(self) -> dict[str, Any]:
        """Plain JSON, with the number of its format."""
        return FORMAT.stamped(asdict(self))

    @classmethod
    def from_json(cls, data: dict[str, Any], source: str) -> Inputs:
        """What `to_json` made, perhaps of an earlier release. Raises InputError if a newer program made it."""
        plain = {key: value for key, value in FORMAT.read(data, source).items() if key != VERSION}
        splits = {split: Images(**plain[split]) for split in ("train", "test")}
        return cls(**{**plain, **splits, "skipped": tuple(plain["skipped"])})


def images_of(data: ImageData) -> Images:
    """The images of a split in memory."""
    return Images(data.sha256, len(data.labels))


def inputs_of(train: ImageData, test: ImageData, evaluator: Evaluator) -> Inputs:
    """The inputs that this process has read."""
    network, real = evaluator.extractor, evaluator.reference
    return Inputs(images_of(train), images_of(test), network.id, network.sha256, real.id, train.skipped)


class StudyInputs:
    """The inputs of one study among its notes."""

    def __init__(self, notes: StudyNotes, records: Callable[[], Iterable[TrialRecord]]) -> None:
        self._notes, self._records = notes, records

    @property
    def recorded(self) -> Inputs | None:
        """The recorded inputs; None before the first launch of this release."""
        note = self._notes.get(INPUTS)
        return None if note is None else Inputs.from_json(note, f"the note {INPUTS} of the study")

    @property
    def known(self) -> tuple[Inputs, ...]:
        """The recorded inputs; if an earlier release began the study, what its scores tell; empty if nothing is known.

        Scores that do not compare with each other tell several.
        """
        if (recorded := self.recorded) is not None:
            return (recorded,)
        return tuple(dict.fromkeys(_told_by(score) for score in _scores(self._records())))

    def record(self, inputs: Inputs) -> None:
        """Records the inputs of the study once and for all."""
        if self._notes.get(INPUTS) is None:
            self._notes.write(INPUTS, inputs.to_json())


def same_but_for_place(dataset: DatasetSpec, other: DatasetSpec) -> DatasetSpec:
    """`dataset` with the place of the files of `other`."""
    return dataset.model_copy(update={key: getattr(other, key) for key in PLACE})


def _scores(records: Iterable[TrialRecord]) -> Iterator[Score]:
    """All scores of these trials that must compare."""
    for record in records:
        for scores in (*(rung.scores for rung in record.rungs), record.final.ours if record.final else {}):
            yield from scores.values()


def _told_by(score: Score) -> Inputs:
    """What a score tells about the inputs: its ids have the first digits of each sha256."""
    train = Images(score.reference.rpartition("-")[2])
    return Inputs(train, None, score.extractor, weights_in(score.extractor), score.reference)
