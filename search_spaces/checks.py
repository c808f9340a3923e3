"""Checks of the sections of a sweep against each other, before anything starts."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from search_spaces.data_checks import count_problems, shape_problems
from search_spaces.document import MOST_PROBLEMS, Path, Problem
from search_spaces.notation import doubled
from search_spaces.pruners import PRUNERS
from search_spaces.pruners.rule import Pruner
from search_spaces.samplers import SAMPLERS, Sampler, unsupported
from search_spaces.settings import OBJECTIVES, kimg
from search_spaces.space import Dimension, Value, active, grid, pairs, points
from trainers.catalogue import SYSTEMS
from trainers.config import LARGEST_BATCH, Config, overlay, problems
from trainers.data.catalogue import DATASETS, published_counts
from trainers.errors import InputError
from trainers.evaluation.scores import METRICS, TOO_SLOW
from trainers.evaluation.spec import INCEPTIONS
from trainers.monitor import INFORMATIONAL, STOPPING

if TYPE_CHECKING:
    from search_spaces.sweep import Sweep

#: Points of the space at which the rules between fields are tried.
TRIED_POINTS = 256
#: Points at which they are tried for each pair of two dimensions; rules between three fields are rare.
TRIED_PAIRS = 4096
#: Fields of the configuration that a sweep file may fix but not search, with the reason.
NOT_SEARCHED = {"seed": "trials with the same values would no longer agree", "threads": "it changes no model"}


def unknown(word: str, allowed: Iterable[str], noun: str = "key") -> str:
    """A sentence on a word that is not among `allowed`, with the nearest that is."""
    known = list(allowed)
    near = get_close_matches(word, known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ";"
    return f"unknown {noun} {word!r}{hint} allowed: {', '.join(known)}"


def find_problems(sweep: Sweep) -> list[Problem]:
    """The problems of `sweep` that can be found without reading a file."""
    if strangers := [name for name in sweep.systems if name not in SYSTEMS]:
        return [(("system",), text) for text in _all_unknown(strangers, SYSTEMS, "system")]
    if found := list(_default_problems(sweep)):
        return found
    fields = {name: None for system in sweep.systems for name in type(sweep.defaults_of(system)).model_fields}
    strangers = [dimension.name for dimension in sweep.search if dimension.name not in {**fields, "system": None}]
    if len(strangers) > MOST_PROBLEMS:  # the later checks take a time that grows with the square of the dimensions
        return [
            (("search", name), text)
            for name, text in zip(strangers, _all_unknown(strangers, fields, "field"), strict=True)
        ]
    data = list(_dataset_problems(sweep))
    return [
        *data,
        *_score_problems(sweep),
        *_objective_problems(sweep),
        *_stop_problems(sweep),
        *_warm_problems(sweep),
        # Each later check relies on the earlier ones.
        *(
            list(_condition_problems(sweep))
            or list(_contradictions(sweep))
            or list(_field_problems(sweep))
            or list(_combination_problems(sweep))
            + list(_rung_problems(sweep))
            + ([] if data else list(_count_problems(sweep)))
            + list(_point_problems(sweep))
            + list(sampler_problems(sweep))
        ),
    ]


def _all_unknown(words: Sequence[str], allowed: Collection[str], noun: str) -> Iterator[str]:
    """A sentence on each word; the nearest allowed one, which takes long to find, for those that will be shown."""
    yield from (unknown(word, allowed, noun) for word in words[:MOST_PROBLEMS])
    yield from (f"unknown {noun} {word!r}" for word in words[MOST_PROBLEMS:])


def inapplicable(metric: str, sweep: Sweep, decides: bool = False) -> str | None:
    """Why `metric` cannot be measured in this sweep; None if it can.

    A metric that decides must exist for every system, one that is only recorded for at least one.
    """
    unlabelled = [name for name in sweep.systems if not SYSTEMS[name].conditional]
    if METRICS[metric].needs_test:
        return f"{metric} {TOO_SLOW}"
    if METRICS[metric].needs_labels and unlabelled and (decides or len(unlabelled) == len(sweep.systems)):
        return f"{metric} needs a conditional system, which {unlabelled[0]} is not"
    if METRICS[metric].needs_logits and (extractor := sweep.score.extractor.name) in INCEPTIONS:
        return f"{metric} needs a classifier's logits; extractor {extractor} gives none, lenet does"
    if sweep.score.samples < METRICS[metric].fewest:
        return f"{metric} needs at least {METRICS[metric].fewest} samples, got {sweep.score.samples}"
    return None


def systems_with(dimension: Dimension, sweep: Sweep) -> tuple[str, ...]:
    """The systems with which `dimension` can be active."""
    return tuple(str(name) for name in sweep.space.requirements(dimension).get("system", sweep.systems))


def _default_problems(sweep: Sweep) -> Iterator[Problem]:
    for name in sweep.defaults:
        try:
            if name not in sweep.systems:
                yield ("defaults", name), unknown(name, sweep.systems, "system")
            else:
                sweep.defaults_of(name)
        except InputError as error:
            yield ("defaults", name), str(error)


def _dataset_problems(sweep: Sweep) -> Iterator[Problem]:
    name = sweep.dataset.name
    if name not in DATASETS:
        yield ("dataset", "name"), unknown(name, DATASETS, "data set")
        return
    try:
        published_counts(sweep.dataset)  # refuses options that mean nothing for this data set
        if DATASETS[name].shape is not None:  # otherwise `check_sweep` reads its files
            yield from shape_problems(sweep)
    except InputError as error:
        yield ("dataset",), str(error)


def _count_problems(sweep: Sweep) -> Iterator[Problem]:
    """Problems of the numbers of images, if they are known without a file; otherwise `check_sweep` finds them."""
    if counts := published_counts(sweep.dataset):
        yield from count_problems(sweep, counts)


def _score_problems(sweep: Sweep) -> Iterator[Problem]:
    named: list[tuple[Path, str]] = [(("score", "metric"), sweep.score.metric)]
    named += [(("score", "also", str(index)), name) for index, name in enumerate(sweep.score.also or ())]
    for path, metric in named:
        decides = path[-1] == "metric"
        if metric not in METRICS:
            yield path, unknown(metric, METRICS, "metric")
        elif reason := inapplicable(metric, sweep, decides):
            fitting = ", ".join(name for name in METRICS if not inapplicable(name, sweep, decides))
            yield path, f"{reason}; allowed here: {fitting}"


def _objective_problems(sweep: Sweep) -> Iterator[Problem]:
    path: Path = ("objectives",)
    if strangers := [name for name in sweep.objectives if name not in OBJECTIVES]:
        yield (*path, str(sweep.objectives.index(strangers[0]))), unknown(strangers[0], OBJECTIVES, "objective")
    elif sweep.objectives[:1] != OBJECTIVES[:1]:
        yield path, f"score must come first, got {list(sweep.objectives)}; allowed: [score], [score, gpu_hours]"
    if len(sweep.objectives) < 2:
        return
    chosen: Sampler | Pruner
    kinds: Mapping[str, type[Sampler | Pruner]]
    for section, chosen, kinds in (("sampler", sweep.sampler, SAMPLERS), ("pruner", sweep.pruner, PRUNERS)):
        if chosen.one_objective:
            fitting = ", ".join(name for name, kind in kinds.items() if not kind.one_objective)
            key = "name" if chosen.name else "class"
            yield (section, key), f"{chosen.title} takes only one objective; allowed with several: {fitting}"
    if sweep.warm_start:
        text = "GPU-hours of other sweeps, perhaps of other machines, do not compare; allowed with objectives [score]"
        yield ("warm_start",), text


def _warm_problems(sweep: Sweep) -> Iterator[Problem]:
    if sweep.warm_start and not sweep.sampler.learns:
        learning = ", ".join(name for name, kind in SAMPLERS.items() if kind.learns)
        text = f"sampler {sweep.sampler.name} learns nothing from other sweeps' trials; allowed: {learning}"
        yield ("warm_start",), text
    if sweep.name in sweep.warm_start:
        yield ("warm_start", str(sweep.warm_start.index(sweep.name))), "is this sweep itself, which goes on anyway"


def _stop_problems(sweep: Sweep) -> Iterator[Problem]:
    for index, kind in enumerate(sweep.stop_on):
        path = ("stop_on", str(index))
        if kind in INFORMATIONAL:
            yield path, f"{kind} is for information and ends no trial; allowed: {', '.join(STOPPING)}"
        elif kind not in STOPPING:
            yield path, unknown(kind, STOPPING, "verdict")


def _condition_problems(sweep: Sweep) -> Iterator[Problem]:
    for dimension in sweep.search:
        for name, values in dimension.when.items():
            path = ("search", dimension.name, "when", name)
            parent = sweep.space.get(name)
            if parent is None:
                yield path, unknown(name, [other.name for other in sweep.space if other is not dimension], "dimension")
            elif parent.continuous:
                yield path, f"{name} is continuous; a condition needs a choice, an int or a constant"
            elif never := [value for value in values if not parent.allows(value)]:
                yield path, f"{name} is never {never[0]!r}; allowed: {_range(parent)}"


def _contradictions(sweep: Sweep) -> Iterator[Problem]:
    for dimension in sweep.search:
        for ancestor, left in sweep.space.requirements(dimension).items():
            if not left:
                text = f"never active: its conditions and those of its parents leave no value of {ancestor}"
                yield ("search", dimension.name, "when"), text


def _field_problems(sweep: Sweep) -> Iterator[Problem]:
    """Checks each dimension on its own against the configuration of every system with which it can be active."""
    for dimension in sweep.search:
        name = dimension.name
        path: Path = ("search", name)
        if name == "system":
            yield path, "the system is given at the top: `system: {choice: [ID, ID]}`"
        elif name == "kimg":
            yield path, "the length of a trial is that of its last rung; set rungs"
        elif name in NOT_SEARCHED and dimension.kind != "constant" and sweep.sampler.name != "grid":
            yield path, f"{name} may only be a constant: {NOT_SEARCHED[name]}; sampler grid repeats trials on purpose"
        else:
            systems = systems_with(dimension, sweep)
            # A dictionary serves as an ordered set: most systems have the same problems.
            yield from dict.fromkeys(found for s in systems for found in _system_problems(dimension, sweep, s))


def _system_problems(dimension: Dimension, sweep: Sweep, system: str) -> Iterator[Problem]:
    defaults, name = sweep.defaults_of(system), dimension.name
    fields = [known for known in type(defaults).model_fields if known != "kimg"]
    if name not in fields:
        yield ("search", name), unknown(name, fields, f"field of {system}")
        return
    written = dimension.kind != "constant" or dimension.when
    path = ("search", name, dimension.kind) if written else ("search", name)
    for value in dimension.extremes():
        for text in _rejections(defaults, name, value):
            yield path, f"{text}{_for_whole_numbers(dimension) if 'valid integer' in text else ''}"


def _for_whole_numbers(dimension: Dimension) -> str:
    """What to write for a field of whole numbers in place of a range of all numbers."""
    low, high = math.ceil(dimension.low), math.floor(dimension.high)
    if dimension.kind == "log_uniform" and low <= high:
        return f"; list whole numbers: choice: {doubled(low, high)}"
    return "; use int" if dimension.kind == "uniform" else ""


def _rejections(defaults: Config, name: str, value: Value) -> list[str]:
    """Why the field `name` rejects `value`. Read strictly, since pydantic otherwise takes true for 1."""
    try:
        type(defaults).model_validate({**defaults.model_dump(), name: value}, strict=True)
    except ValidationError as error:
        return [text for path, text in problems(error) if path[:1] == (name,)]
    return []


def _combination_problems(sweep: Sweep) -> Iterator[Problem]:
    """Problems of rules between fields, found at random points and at pairs of extreme values."""
    seen: set[str] = set()
    for values in chain(points(sweep.space, TRIED_POINTS), islice(pairs(sweep.space), TRIED_PAIRS)):
        system, chosen = str(values["system"]), {name: value for name, value in values.items() if name != "system"}
        reason = _conflict(sweep.defaults_of(system), chosen)
        if reason is None or reason in seen:
            continue
        seen.add(reason)
        for name in list(chosen):  # leaves only the values that cause it
            rest = {other: value for other, value in chosen.items() if other != name}
            if _conflict(sweep.defaults_of(system), rest) == reason:
                chosen = rest
        at = ", ".join(f"{name} {value!r}" for name, value in chosen.items())
        yield ("search", *list(chosen)[:1]), f"{reason} (system {system}{' with ' + at if at else ''})"


def _conflict(defaults: Config, values: dict[str, Any]) -> str | None:
    try:
        overlay(defaults, values)
    except ValidationError as error:
        path, text = problems(error)[0]
        return f"{'.'.join(path)}: {text}" if path else text
    return None


def _rung_problems(sweep: Sweep) -> Iterator[Problem]:
    """The first problem of each source of batches: rungs are whole batches, which the workers share evenly."""
    named: set[str] = set()
    workers, scale = sweep.resources.workers_per_trial, sweep.resources.scale
    for each, source in _batches(sweep):
        batch = each * scale
        if workers > 1 and batch == workers and sweep.resources.batch_norm == "local" and source not in named:
            named.add(source)
            text = f"local leaves a worker one image of a batch of {batch} ({source}), which has no variance"
            yield ("resources", "batch_norm"), f"{text}; allowed: batches of {2 * workers} or more, or synchronised"
        if batch % workers and source not in named:
            named.add(source)
            text = f"{workers} workers cannot share a batch of {batch} ({source}) evenly"
            yield ("resources", "workers_per_trial"), f"{text}; or set resources.batch to scaled"
        if scale > 1 and batch > LARGEST_BATCH and source not in named:
            named.add(source)
            text = f"scaled by {workers} workers, a batch of {each} ({source}) is {batch}; allowed are {LARGEST_BATCH}"
            yield ("resources", "batch"), text
        rung = next((rung for rung in sweep.rungs if rung % batch), None)
        if rung is not None and source not in named:
            named.add(source)
            yield ("rungs",), f"rung {kimg(rung)} kimg ({rung} images) is not a multiple of batch {batch} ({source})"


def _point_problems(sweep: Sweep) -> Iterator[Problem]:
    for index, point in enumerate(sweep.points):
        for name, value in point.items():
            path, dimension = ("points", str(index), name), sweep.space.get(name)
            if dimension is None:
                yield path, unknown(name, [other.name for other in sweep.space], "dimension")
            elif not dimension.allows(value):
                yield path, f"{name} is never {value!r}; allowed: {_range(dimension)}"
            elif dimension.when and not active(dimension, point):
                yield path, f"takes no part: the point must give {dimension.when} too"
    trials = sweep.budget.trials
    if trials is not None and (count := len(sweep.points)) > trials:
        yield ("budget", "trials"), f"{trials} is less than the {count} points"


def sampler_problems(sweep: Sweep) -> Iterator[Problem]:
    """Problems of the sampler with the search space, the points and the number of trials."""
    refused = list(unsupported(sweep.sampler, sweep.space))
    yield from refused
    if sweep.sampler.name != "grid":
        return
    if sweep.points:
        yield ("points",), "sampler grid visits every point anyway; leave one of them out"
    if refused:
        return
    if (asked := sweep.budget.trials) is None:
        yield ("budget",), "sampler grid needs trials, the number of points to visit"
    elif asked > (count := sum(1 for _ in islice(grid(sweep.space), asked))):
        yield ("budget", "trials"), f"{asked} is more than the {count} points of the grid"


def _batches(sweep: Sweep) -> Iterator[tuple[int, str]]:
    """Every batch size that a trial can have, with its source."""
    dimension = sweep.space.get("batch")
    if dimension and dimension.kind == "int":
        source = "from the int range search.batch; use choice"
        yield from ((batch, source) for batch in range(int(dimension.low), int(dimension.high) + 1))
    elif dimension:
        yield from ((int(value), f"search.batch has {value}") for value in dimension.values)
    for system in sweep.systems:
        always = dimension is not None and set(dimension.when) <= {"system"}
        if dimension is None or not always or system not in systems_with(dimension, sweep):
            yield sweep.defaults_of(system).batch, f"the default of {system}"


def _range(dimension: Dimension) -> str:
    if dimension.kind not in ("choice", "constant"):
        return f"{dimension.low} to {dimension.high}"
    return ", ".join(map(repr, dimension.values))
