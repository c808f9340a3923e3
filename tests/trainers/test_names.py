"""The tables of names, which help texts show without torch, agree with what they name."""

from __future__ import annotations

from importlib import import_module

from trainers import catalogue, names
from trainers.data.catalogue import DATASETS


def test_the_tables_name_all_systems_and_data_sets() -> None:
    families = {family: tuple(import_module(f"trainers.gans.{family}").SYSTEMS) for family in names.FAMILIES}
    assert families == names.FAMILIES
    assert tuple(catalogue.SYSTEMS) == names.SYSTEMS
    assert tuple(DATASETS) == names.DATASETS
