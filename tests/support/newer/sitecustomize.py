"""With this folder in PYTHONPATH every Python process is of a later release, whose configuration has one field more."""

from __future__ import annotations

FIELD, VALUE = "leak", 0.25


def add_field() -> None:
    """Replaces the class that every family of GANs subclasses, before any of them is imported."""
    from pydantic import Field, create_model

    from trainers import config

    described = Field(VALUE, description="a field of a later release")
    config.Config = create_model("Config", __base__=config.Config, __module__=config.__name__, leak=(float, described))  # type: ignore[misc]


if __name__ == "sitecustomize":  # a test imports it by another name
    add_field()
