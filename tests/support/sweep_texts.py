"""Texts of small sweep files, right and wrong."""

from __future__ import annotations

import pytest

from search_spaces.load import parse_sweep
from search_spaces.sweep import Sweep
from trainers.errors import InputError

SECTIONS = {
    "system": "narman-cgan",
    "dataset": "mnist-mini",
    "search": "{g_lr: {log_uniform: [1e-5, 5e-3]}}",
    "rungs": "{every: 10, until: 60}",
    "budget": "{trials: 12}",
}
BOTH = "{choice: [narman-cgan, narman-dcgan]}"


def sweep_text(**sections: str | None) -> str:
    """A small valid sweep file, one line per section, with `sections` in place of its own; None leaves one out."""
    return "".join(f"{key}: {text}\n" for key, text in {**SECTIONS, **sections}.items() if text is not None)


def sweep(**sections: str | None) -> Sweep:
    """The sweep of that file, whose name is small.yaml."""
    return parse_sweep(sweep_text(**sections), "small.yaml")


def message(text: str, *overrides: str) -> str:
    """With which words the text is refused."""
    with pytest.raises(InputError) as caught:
        parse_sweep(text, "small.yaml", overrides)
    return str(caught.value)
