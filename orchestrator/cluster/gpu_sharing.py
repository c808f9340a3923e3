"""How many trials share a GPU if the sweep file says `auto`: measured once, and kept with the study."""

from __future__ import annotations

from collections.abc import Callable

import ray

from orchestrator.study.study import SweepStudy
from search_spaces.plan import planned
from search_spaces.settings import Resources
from search_spaces.sweep import Sweep, read_kept
from trainers.data.catalogue import shape_of
from trainers.tools.gpu_sharing import Shared, best, measured


def with_shared_gpus(study: SweepStudy, say: Callable[[str], object]) -> Resources:
    """The resources of a trial of `study`, with a number in place of `trials_per_gpu: auto`.

    The number is measured with the first planned trial, on a GPU of the cluster that this process is connected to.
    """
    want = study.sweep.resources
    if want.trials_per_gpu != "auto":
        return want
    trials = study.limits.trials_per_gpu
    if trials is None:
        say("measuring how many trials share a GPU")
        task = ray.remote(num_cpus=want.cpus_per_worker, num_gpus=1)(_measure)
        found: list[Shared] = ray.get(task.remote(study.sweep.normalised()))
        study.limits.trials_per_gpu = trials = best(found)
        say("\n".join(map(_line, found)))
    say(f"{trials} trials share a GPU")
    return want.model_copy(update={"trials_per_gpu": trials})


def _line(each: Shared) -> str:
    """One measurement in a line."""
    one = each.images_per_s / each.trainings
    return (
        f"{each.trainings:>3} at a time: {each.images_per_s:,.0f} images/s in all, {one:,.0f} each, "
        f"{each.memory / 2**20:,.0f} MiB each"
    )


def _measure(sweep_text: str) -> list[Shared]:
    sweep: Sweep = read_kept(sweep_text)
    system_id, config = sweep.configure(planned(sweep)[0])
    _, classes = shape_of(sweep.dataset)
    return list(measured(system_id, config, classes))
