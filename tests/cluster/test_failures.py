"""Laws of failing: which kind it was, who goes on, how often, and what is left to read."""

from __future__ import annotations

import logging
import os
import signal
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlflow import MlflowClient

from orchestrator.cluster.trainable import LOG_BYTES, LOG_LINES, log_tail
from orchestrator.decisions.failures import KINDS, MOST_FAILURES, MOST_OF_OTHERS, Failure, failure_of, reason_to_fail
from orchestrator.paths import mlflow_uri
from orchestrator.store import Objects, TrialStore
from orchestrator.store.folder import FolderObjects
from orchestrator.study.status import status_of
from orchestrator.study.study import SweepStudy
from orchestrator.tracking.tracker import FAILURE, Tracker
from search_spaces.settings import Keep, Store
from tests.support import failing, made_up, sweeps
from tests.support.objects import MemoryObjects, left_by
from trainers.checkpoint import STATE

DIED = """The actor died unexpectedly before finishing this task.
\tclass_name: with_resources.<locals>.ResourceTrainable
\tactor_id: 69b0fd9d5f896f8349e0ad8f01000000
\tpid: 8846
\tip: 192.0.2.2
"""
FRAMES = """\x1b[36mray::ResourceTrainable.train()\x1b[39m (pid=88, ip=192.0.2.2, actor_id=69b0, repr=<trial>)
  File "orchestrator/tune.py", line 60, in step
    raise CheckpointError("CUDA")
"""
#: As Ray 2.60 words it, and as it was recorded where a process or a node was killed.
ACCOUNTS = {
    f"{FRAMES}torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.": "cuda-out-of-memory",
    f"{FRAMES}torch.cuda.OutOfMemoryError: Allocation on device": "cuda-out-of-memory",
    f"{FRAMES}torch.AcceleratorError: CUDA error: out of memory\nCUDA kernel errors": "cuda-out-of-memory",
    f"{FRAMES}RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling": "cuda-out-of-memory",
    f"{FRAMES}trainers.checkpoint.CheckpointError: 00/state: not a checkpoint": "bad-checkpoint",
    f"{FRAMES}trainers.errors.InputError: /data: no such folder": "error",
    f"{FRAMES}orchestrator.study.inputs.OtherInputsError: node 192.0.2.2/ab: dataset: the train": "other-inputs",
    f"{FRAMES}RuntimeError: CUDA error: an illegal memory access was encountered": "error",
    f"{FRAMES}MemoryError": "error",
    f"{FRAMES}OSError: [Errno 5] Input/output error": "error",
    f"{FRAMES}OSError: [Errno 28] No space left on device": "full-disk",
    f"The actor died because of an error raised in its creation task, {FRAMES}OSError: no": "error",
    f"{DIED}The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR Worker exit detail: "
    "Worker unexpectedly exits with a connection error code 2. End of file. Some common causes include: (1) the "
    "process was killed by the OOM killer due to high memory usage, [...] consider enabling resource isolation via "
    "--enable-resource-isolation to prevent node deaths by resource contention.": "killed-worker",
    f"{DIED}Task was killed due to the node running low on memory.": "killed-worker",
    "The actor fe2110d733a0e33d6291229901000000 is unavailable: The actor is temporarily unavailable: RpcError: RPC "
    "error: Socket closed rpc_code: 14. The task may or may not have been executed on the actor.": "lost-node",
    f"{DIED}The actor died because its node has died. Node Id: 61453f\n\tthe actor's node was terminated "
    "unexpectedly: health check failed due to missing too many heartbeats": "lost-node",
    f"{DIED}\tthe actor's node was preempted: spot instance": "lost-node",
    f"{FRAMES}OSError: [Errno 28] No space left on device: '/runs/t0/store/trials/00001'": "full-disk",
    f"{FRAMES}OSError: [Errno 30] Read-only file system: '/runs/t0/scratch'": "full-disk",
    f"{FRAMES}safetensors_rust.SafetensorError: I/O error: No space left on device (os error 28)": "full-disk",
    f"{FRAMES}orchestrator.store.spool.SpoolFullError: the spool /x is full: 9 GB wait for s3://b": "full-disk",
}
BLAMED = {kind.name: kind.blames_trial for kind in KINDS}


@pytest.mark.parametrize(("account", "kind"), ACCOUNTS.items(), ids=lambda text: text[-40:])
def test_every_kind_is_recognised_by_rays_account_of_it(account: str, kind: str) -> None:
    failure = failure_of(2, account)
    assert (failure.attempt, failure.kind) == (2, kind)
    assert failure.message
    assert "\n" not in failure.message


def test_the_message_is_what_was_raised_or_what_to_do(tmp_path: Path) -> None:
    messages = {failure.kind: failure.message for failure in (failure_of(1, account) for account in ACCOUNTS)}
    assert "resources.trials_per_gpu" in messages["cuda-out-of-memory"]
    assert "memory" in messages["killed-worker"]
    assert messages["bad-checkpoint"].startswith("trainers.checkpoint.CheckpointError: 00/state: not a checkpoint")
    assert failure_of(1, f"{FRAMES}ValueError: first {{}}\nand second").message == "ValueError: first {}"


def test_the_tail_of_a_log_is_its_end_and_holds_no_secret(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"first\n" + b"line\n" * 1000 + b"\x1b[31mlast\x1b[0m \x00\xff AKIAABCDEFGHIJKLMNOP s3://u:pw@b\n")
    tail = log_tail(log, "Traceback\ud800")
    assert tail.endswith("Traceback")
    assert "last " in tail
    assert not any(secret in tail for secret in ("first", "\x1b", "\x00", "AKIAABCDEFGHIJKLMNOP", "pw"))
    assert len(tail.splitlines()) == LOG_LINES
    assert len(log_tail(log, "ä" * LOG_BYTES).encode()) <= LOG_BYTES
    assert log_tail(tmp_path / "elsewhere", "why") == "why"


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from([*BLAMED]), max_size=60))
def test_a_trial_is_given_up_at_its_third_failure_or_the_last_one_of_another_kind(kinds: list[str]) -> None:
    failures = [Failure(attempt, kind, "why") for attempt, kind in enumerate(kinds, 1)]
    for end in range(len(kinds) + 1):
        counts = Counter(kinds[:end])
        own = sum(count for kind, count in counts.items() if BLAMED[kind])
        others = [count for kind, count in counts.items() if not BLAMED[kind]]
        expected = own >= MOST_FAILURES or max(others, default=0) >= MOST_OF_OTHERS
        assert (reason_to_fail(failures[:end]) is not None) == expected


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([None, *BLAMED]), st.booleans()), max_size=12))
def test_whatever_fails_a_study_goes_on_to_its_exact_number_of_trials(events: list[tuple[str | None, bool]]) -> None:
    """Each event is the kind of a failure, or none, of the trial under way, and whether another driver goes on."""
    with tempfile.TemporaryDirectory() as folder:
        study = SweepStudy.create(Path(folder), made_up.sweep("pruner=none", "budget.trials=3"))
        expected: Counter[str] = Counter()
        seen: Counter[tuple[int, bool]] = Counter()
        while (ticket := study.next_ticket()) is not None:
            kind, reopened = events.pop(0) if events else (None, False)
            if kind is None:
                study.report(ticket.number, made_up.history(3.0, 2.0, 1.0))
                continue
            expected[kind] += 1
            seen[ticket.number, BLAMED[kind]] += 1
            goes_on = study.record_crash(ticket.number, Failure(ticket.attempt, kind, "why"), "log")
            assert goes_on == (seen[ticket.number, True] < MOST_FAILURES)
            assert (study.records()[ticket.number].state == "running") == goes_on
            if reopened:
                again = SweepStudy.open(Path(folder))
                assert again is not None
                study = again
        status = status_of(study)
        assert status.state == "complete"
        assert [record.number for record in status.records] == [0, 1, 2]
        assert +Counter(status.failures) == expected
        for record in status.records:
            assert (record.state == "failed") == (seen[record.number, True] >= MOST_FAILURES)
            assert [failure.attempt for failure in record.failures] == [*range(1, len(record.failures) + 1)]


def test_a_trial_goes_on_before_new_ones_begin_and_keeps_its_parameters(tmp_path: Path) -> None:
    study = SweepStudy.create(tmp_path, made_up.sweep())
    first, second = study.next_ticket(), study.next_ticket()
    assert first
    assert second
    assert study.record_crash(first.number, Failure(1, "lost-node", "gone"), "")
    again = study.next_ticket()
    assert again
    assert (again.number, again.attempt, again.params) == (first.number, 2, first.params)


def test_a_trial_that_its_driver_had_no_time_to_end_is_ended_by_the_next_one(tmp_path: Path) -> None:
    study = SweepStudy.create(tmp_path, made_up.sweep())
    assert study.next_ticket()
    for attempt in range(1, MOST_FAILURES + 1):
        assert study.record_failure(0, Failure(attempt, "error", "no"))
    assert not study.record_failure(0, Failure(1, "error", "no")), "told again, it is not kept again"
    heir = SweepStudy.open(tmp_path)
    assert heir is not None
    following = heir.next_ticket()
    assert following
    assert following.number == 1
    record = heir.records()[0]
    assert (record.state, record.reason) == ("failed", "no (failures: 3 error)")


def test_a_diverged_trial_is_counted_as_nan(tmp_path: Path) -> None:
    study = SweepStudy.create(tmp_path, made_up.sweep())
    assert study.next_ticket()
    study.report(0, [made_up.rung(1000, 0.0, diverged="loss_g is nan")])
    assert +Counter(status_of(study).failures) == {"nan": 1}


def test_the_log_of_a_failed_trial_is_in_mlflow_once_however_often_it_is_written(tmp_path: Path) -> None:
    (tmp_path / "made-up").mkdir()
    study = SweepStudy.create(tmp_path / "made-up", made_up.sweep())
    for attempt in range(1, MOST_FAILURES + 1):
        assert study.next_ticket()
        study.record_crash(0, Failure(attempt, "error", f"no {attempt}"), f"log {attempt}")
    for thorough in (False, False, True):
        Tracker(tmp_path, study.sweep, study.id, thorough).sync(study.records()[0], lambda number: {})
    client = MlflowClient(mlflow_uri(tmp_path))
    experiment = client.get_experiment_by_name("made-up").experiment_id
    (run,) = client.search_runs([experiment], "tags.`gansweep.trial` = '0'")
    assert [file.path for file in client.list_artifacts(run.info.run_id)] == [FAILURE]
    assert run.info.status == "FAILED"
    text = Path(client.download_artifacts(run.info.run_id, FAILURE)).read_text()
    assert text.startswith("no 3 (failures: 3 error)\n")
    assert all(f"attempt {attempt}: error: no {attempt}\n" in text for attempt in (1, 2, 3))
    assert text.endswith("log 3\n")


@pytest.mark.parametrize("kind", ["folder", "memory"])
@pytest.mark.parametrize("broken", [0, 1, 3])
def test_the_store_tells_of_each_damaged_checkpoint_that_it_passes_over(tmp_path: Path, kind: str, broken: int) -> None:
    objects: Objects = FolderObjects(tmp_path / "store") if kind == "folder" else MemoryObjects()
    store = TrialStore(objects, tmp_path / "scratch", Store(keep=Keep(last=3)))
    for images in (100, 200, 300):
        store.publish(3, 1, left_by(images, 1.0), best=())
    states = sorted(each.key for each in objects.find("trials/00003/checkpoints/") if each.key.endswith(STATE))
    for key in states[3 - broken :]:
        objects.put(key, b"damaged")
    told: list[str] = []
    with store.newest(3, told.append) as found:
        assert (None if found is None else int(found.name[:10])) == (None if broken == 3 else 300 - 100 * broken)
    assert len(told) == broken
    assert all(f"{images:010d}" in text for images, text in zip((300, 200, 100), told, strict=False))


@pytest.mark.slow
@pytest.mark.faults
def test_ray_tells_a_killed_worker_from_a_lost_node() -> None:
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        node = cluster.add_node(num_cpus=2)
        ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
        workers = [ray.remote(num_cpus=1)(Worker).remote() for _ in range(2)]
        ray.get([worker.step.remote(0) for worker in workers])
        assert _kind_of_death(workers[0].step.remote(signal.SIGKILL)) == "killed-worker"
        sleeping = workers[1].step.remote(0, seconds=600)
        cluster.remove_node(node, allow_graceful=False)
        assert _kind_of_death(sleeping) == "lost-node"
    finally:
        ray.shutdown()
        cluster.shutdown()


class Worker:
    """A process that does as it is told."""

    def step(self, kill: int, seconds: float = 0) -> None:
        time.sleep(seconds)
        os.kill(os.getpid(), kill)


def _kind_of_death(result: Any) -> str:
    import ray

    with pytest.raises(ray.exceptions.RayError) as caught:
        ray.get(result)
    return failure_of(1, str(caught.value)).kind


@pytest.mark.slow
@pytest.mark.faults
@pytest.mark.timeout(1800)
@pytest.mark.usefixtures("mnist_mini_lenet")
def test_a_sweep_goes_on_whatever_its_trials_die_of(tmp_path: Path, cache_dir: Path) -> None:
    text = sweeps.TINY.replace("pruner: {name: median, startup: 2}", "pruner: none")
    sweeps.prepare(tmp_path, cache_dir, text)
    here = {"PYTHONPATH": str(sweeps.REPOSITORY)}
    done = sweeps.gansweep(
        "launch", "tiny.yaml", cwd=tmp_path, timeout=1200, module="tests.support.failing", settings=here
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    found = sweeps.records(tmp_path / "runs" / "tiny")
    assert [record.state for record in found] == ["complete", "failed", "complete", "complete", "complete"]
    kinds = [[failure.kind for failure in record.failures] for record in found]
    assert kinds == [
        [],
        ["cuda-out-of-memory"] * MOST_FAILURES,
        ["killed-worker"],
        ["killed-worker", "bad-checkpoint"],
        ["killed-worker", "bad-checkpoint", "bad-checkpoint"],
    ]
    assert found[failing.DAMAGED].failures[1].message.startswith("goes on from 0000000500; damaged checkpoint passed")
    assert all("begins anew" in failure.message for failure in found[failing.ALL_DAMAGED].failures[1:])
    for record in found:
        rungs = [rung.images for rung in record.rungs]
        assert rungs == ([] if record.number == failing.OUT_OF_MEMORY else [500, 1000, 1500, 2000])
    assert "killed next" in found[failing.KILLED].log
    status = sweeps.status("tiny", tmp_path)
    assert status["state"] == "complete"
    assert +Counter(status["failures"]) == {"cuda-out-of-memory": 3, "killed-worker": 3, "bad-checkpoint": 3}
    client = MlflowClient(mlflow_uri(tmp_path / "runs"))
    experiment = client.get_experiment_by_name("tiny").experiment_id
    for run in client.search_runs([experiment], "tags.`gansweep.trial` LIKE '%'"):
        names = [file.path for file in client.list_artifacts(run.info.run_id)]
        assert (FAILURE in names) == (run.data.tags["gansweep.trial"] == str(failing.OUT_OF_MEMORY))
        if FAILURE in names:
            log = Path(client.download_artifacts(run.info.run_id, FAILURE)).read_text()
            assert "printed by 3\nwritten below Python\n" in log
            assert "torch.OutOfMemoryError: CUDA out of memory." in log
            assert run.info.status == "FAILED"
    assert not (tmp_path / "runs" / "tiny" / ".tune").exists()
