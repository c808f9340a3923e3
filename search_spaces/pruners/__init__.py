"""The pruners that a sweep file can name. A new kind is a file in this folder and a line in PRUNERS."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, SerializeAsAny

from search_spaces.pruners.freeze_thaw import FreezeThaw
from search_spaces.pruners.halving import Halving
from search_spaces.pruners.optuna_pruners import Hyperband, NamedPruner
from search_spaces.pruners.own_scores import Patient, Threshold
from search_spaces.pruners.percentile import Median, Percentile
from search_spaces.pruners.rule import Pruner, Unpruned
from search_spaces.settings import by_name

PRUNERS: dict[str, type[Pruner]] = {
    "freeze-thaw": FreezeThaw,
    "median": Median,
    "percentile": Percentile,
    "halving": Halving,
    "hyperband": Hyperband,
    "patient": Patient,
    "threshold": Threshold,
    "none": Unpruned,
}
ChosenPruner = Annotated[SerializeAsAny[Pruner], BeforeValidator(by_name(PRUNERS, NamedPruner))]
