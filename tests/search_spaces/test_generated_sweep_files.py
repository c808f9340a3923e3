"""Laws of the sweep file over generated ones: accepted, each survives its normalised text; else words refuse it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from search_spaces.load import parse_sweep
from search_spaces.sweep import Sweep
from tests.support.sweep_texts import sweep_text
from trainers.errors import InputError
from trainers.monitor import STOPPING

LEARNING_RATES = st.floats(1e-6, 1.0)
FLOATS = {
    "g_lr": LEARNING_RATES,
    "slope": st.floats(0, 0.99),
    "width": st.floats(1e-3, 16),
    "dropout": st.floats(0, 0.9),
}
WORDS = {"schedule": ["constant", "exponential", "cosine", "linear"], "smoothing": ["none", "fixed", "random"]}


@st.composite
def dimensions(draw: st.DrawFn) -> dict[str, Any]:
    """A valid `search` section in which later keys may depend on words."""
    search: dict[str, Any] = {}
    for name, words in WORDS.items():
        if draw(st.booleans()):
            search[name] = {"choice": draw(st.lists(st.sampled_from(words), min_size=1, unique=True))}
    for name, values in FLOATS.items():
        kind = draw(st.sampled_from(["absent", "constant", "choice", "uniform"]))
        low, high = sorted(draw(st.lists(values, min_size=2, max_size=2, unique=True)))
        body: Any = {"constant": low, "choice": [high, low], "uniform": [low, high]}.get(kind)
        parents = [parent for parent in WORDS if parent in search]
        conditional = draw(st.booleans())
        if parents and conditional and kind != "absent":
            parent = draw(st.sampled_from(parents))
            when = {parent: draw(st.lists(st.sampled_from(search[parent]["choice"]), min_size=1, unique=True))}
            search[name] = {kind: body, "when": when}
        elif kind != "absent":
            search[name] = body if kind == "constant" else {kind: body}
    if draw(st.booleans()):
        low, high = sorted(draw(st.lists(st.integers(1, 100), min_size=2, max_size=2)))
        search["n_critic"] = {"int": [low, high]}
    # Any order is allowed: a parent may follow its children.
    return {name: search[name] for name in draw(st.permutations(list(search)))}


@st.composite
def budgets(draw: st.DrawFn) -> dict[str, Any]:
    amounts = {
        "trials": st.integers(1, 10**6),
        "gpu_hours": st.floats(0.01, 1e6),
        "hours": st.integers(1, 1000),
        "money": st.floats(0.01, 1e6),
        "patience": st.integers(1, 1000),
        "target": st.floats(-10, 1e6),
    }
    named = draw(st.sets(st.sampled_from(list(amounts)))) | draw(st.sampled_from([{"trials"}, {"hours"}, {"money"}]))
    return {"price_per_gpu_hour": 2.5, **{name: draw(amounts[name]) for name in named}}


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    every = draw(st.integers(1, 400)) * 100
    listed = sorted(draw(st.lists(st.integers(1, 10_000), min_size=1, max_size=6, unique=True)))
    return {
        "name": draw(st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,20}", fullmatch=True)),
        "system": draw(st.sampled_from(["narman-cgan", {"choice": ["narman-dcgan", "narman-cgan"]}])),
        "dataset": draw(st.sampled_from(["mnist-mini", {"name": "mnist", "path": "some where", "download": True}])),
        "search": draw(dimensions()),
        "rungs": draw(
            st.one_of(
                st.just([number * 0.1 for number in listed]),
                st.integers(1, 50).map(lambda n: {"every": every / 1000, "until": every * n / 1000}),
            )
        ),
        "score": {"samples": draw(st.integers(2, 10_000)), "extractor": draw(st.sampled_from(["lenet", "inception"]))},
        "finals": {"trials": draw(st.integers(0, 9)), "samples": draw(st.sampled_from([2, 10_000, 50_000]))},
        "stop_on": draw(st.lists(st.sampled_from(STOPPING), unique=True)),
        "sampler": draw(st.sampled_from(["random", {"name": "tpe", "startup": 0, "seed": 7}])),
        "pruner": draw(st.sampled_from(["none", {"name": "percentile", "warmup": 12.8}, {"name": "hyperband"}])),
        "budget": draw(budgets()),
        "resources": {
            "gpus_per_worker": draw(st.floats(0, 1)),
            "concurrent_trials": draw(st.none() | st.integers(1, 9)),
        },
        "store": {"path": draw(st.none() | st.sampled_from(["~", "1e-5", "a: b", "été", "null", "on"]))},
    }


PLACES = [
    "name", "system", "system.choice", "dataset", "dataset.path", "search", "search.g_lr", "search.batch.choice",
    "search.n_critic.int", "search.g_lr.log_uniform", "search.slope.uniform", "search.slope.when",
    "search.slope.when.system", "rungs", "rungs.every", "score", "score.samples", "score.extractor", "score.also",
    "finals", "finals.trials", "sampler", "sampler.name", "pruner", "pruner.warmup", "stop_on", "objectives",
    "budget", "budget.trials", "resources.gpus_per_worker", "store.path", "tracking", "unknown", "",
]  # fmt: skip
SCALARS = (
    st.none() | st.booleans() | st.integers(-3, 10**400) | st.floats() | st.sampled_from(["kid", "bce", "1e-5", ""])
)
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["choice", "when", "uniform", "int", "name", "g_lr", "system"]), inner, max_size=3
        )
    ),
    max_leaves=6,
)


@st.composite
def overrides(draw: st.DrawFn) -> list[str]:
    """Anything at one or two places."""
    changes = draw(st.dictionaries(st.sampled_from(PLACES), ANYTHING, min_size=1, max_size=2))
    texts = [f"{place}={json.dumps(value)}" for place, value in changes.items()]
    return [text.replace("NaN", ".nan").replace("Infinity", ".inf") for text in texts]


@st.composite
def slips(draw: st.DrawFn) -> str:
    """A small sweep file with a few slips of the pen: something left out, written twice or put in."""
    text = sweep_text(search="{g_lr: {log_uniform: [1e-5, 5e-3]}, loss: {choice: [bce, hinge]}}", pruner="median")
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(text)))
        end = min(len(text), start + draw(st.integers(0, 12)))
        put_in = draw(st.sampled_from(["", text[start:end] * 2]) | st.text(max_size=4))
        text = text[:start] + put_in + text[end:]
    return text


def equal_after_normalisation(read: Sweep) -> None:
    again = parse_sweep(read.normalised())
    assert again == read
    assert again.normalised() == read.normalised()


def accepted_or_refused_in_words(text: str, changes: Sequence[str] = ()) -> None:
    lines = []
    try:
        equal_after_normalisation(parse_sweep(text, "small.yaml", changes))
    except InputError as error:
        lines = str(error).splitlines() or [""]
    assert all(line.startswith(("small.yaml", "--set ")) for line in lines)


def survives(written: dict[str, Any]) -> None:
    """A valid file, its normalised text."""
    equal_after_normalisation(parse_sweep(json.dumps(written)))  # JSON is YAML


def answered(changes: list[str]) -> None:
    """Anything at any place, by a sweep or one message."""
    accepted_or_refused_in_words(sweep_text(), changes)


def read_or_refused(text: str) -> None:
    """A file with slips of the pen."""
    accepted_or_refused_in_words(text)


#: Each with its share of 10,000.
LAWS = {survives: (documents(), 2000), answered: (overrides(), 4000), read_or_refused: (slips(), 4000)}


@pytest.mark.parametrize("law", LAWS)
def test_every_generated_file_is_accepted_or_refused_in_words(law: Callable[..., None]) -> None:
    _hold(law, 60)


@pytest.mark.slow
@pytest.mark.parametrize("law", LAWS)
def test_so_are_ten_thousand(law: Callable[..., None]) -> None:
    _hold(law, LAWS[law][1])


def _hold(law: Callable[..., None], files: int) -> None:
    bounds = settings(max_examples=files, deadline=None, suppress_health_check=list(HealthCheck))
    bounds(given(LAWS[law][0])(law))()
