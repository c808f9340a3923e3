"""Two sweeps of one name never share a store: whoever comes second is refused, and nothing of the first is touched."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest

from orchestrator.driver.gc import collect
from orchestrator.driver.ownership import check_scored, check_store_owner, take_store, undone_if_foreign
from orchestrator.store import Objects, store_of
from orchestrator.store.checkpoints import key_of, names
from orchestrator.store.fencing import trial_key
from orchestrator.store.ownership import OWNER, ForeignStoreError
from orchestrator.study import lease
from orchestrator.study.lease import hold_lease
from orchestrator.study.study import SweepStudy
from search_spaces.sweep import Sweep
from tests.support import made_up, sweeps
from tests.support.servers import S3Server
from tests.support.stored import left_sweep, save
from trainers.checkpoint import MANIFEST, STATE
from trainers.errors import InputError

REMEDY = "use another --name or store.path"


@pytest.fixture(autouse=True)
def _no_rivals(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lease waits for claims of others at the same moment, which none of these studies has."""
    monkeypatch.setattr(lease, "time", SimpleNamespace(**{**vars(time), "sleep": lambda seconds: None}))


@pytest.fixture(params=["folder", "s3"])
def sweep(request: pytest.FixtureRequest, tmp_path: Path) -> Sweep:
    """A sweep whose store two roots share."""
    if request.param == "folder":
        return made_up.sweep(f"store={{path: {tmp_path / 'shared'}}}")
    server: S3Server = request.getfixturevalue("s3")
    bucket = server.bucket(f"b-{uuid.uuid4().hex}")
    return made_up.sweep(f"store={{path: s3://{bucket}/sweeps, endpoint: '{server.endpoint}'}}")


@pytest.fixture
def folder_sweep(tmp_path: Path) -> Sweep:
    return made_up.sweep(f"store={{path: {tmp_path / 'shared'}}}")


def contents(objects: Objects) -> dict[str, bytes]:
    return {each.key: objects.get(each.key)[0] for each in [*objects.find(""), *objects.leftovers("")]}


def owner(objects: Objects) -> str:
    return str(json.loads(objects.get(OWNER)[0])["id"])


def commanded(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return sweeps.in_process(*words, "--root", str(root), cwd=root.parent)


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """The one sentence with which a command has refused a foreign store."""
    assert done.returncode == 2, done.stdout + done.stderr
    assert REMEDY in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    return done.stderr


def written(sweep: Sweep, folder: Path) -> str:
    """The sweep as a file in `folder`."""
    (folder / "s.yaml").write_text(sweep.as_written())
    return str(folder / "s.yaml")


def test_a_second_root_is_refused_before_anything_starts_and_leaves_nothing(sweep: Sweep, tmp_path: Path) -> None:
    _, store = left_sweep(tmp_path / "one", sweep)
    before, file = contents(store.objects), written(sweep, tmp_path)
    for more in ([], ["--dry-run"]):
        assert "belongs to another sweep" in refused(commanded(tmp_path / "two", "launch", file, *more))
    done = commanded(tmp_path / "two", "doctor", file)
    assert done.returncode == 1
    assert "belongs to another sweep" in done.stdout
    assert REMEDY in done.stdout
    assert contents(store.objects) == before
    assert not (tmp_path / "two" / sweep.name).exists()


def test_a_sweep_whose_folder_was_deleted_is_told_what_to_do(folder_sweep: Sweep, tmp_path: Path) -> None:
    _, store = left_sweep(tmp_path / "one", folder_sweep)
    shutil.rmtree(tmp_path / "one")
    said = refused(commanded(tmp_path / "one", "launch", written(folder_sweep, tmp_path)))
    assert str(tmp_path / "shared" / folder_sweep.name) in said
    assert "whose folder was deleted" in said
    store.objects.delete(each.key for each in store.objects.find(""))
    check_store_owner(folder_sweep, tmp_path / "one" / folder_sweep.name, lambda: None)


@pytest.fixture
def first(sweep: Sweep, tmp_path: Path) -> SweepStudy:
    """A sweep below `one` that has the store. Below `two` is one of its name that has lost it."""
    _, store = left_sweep(tmp_path / "two", sweep, owned=False)
    store.objects.delete(each.key for each in store.objects.find(""))
    return left_sweep(tmp_path / "one", sweep)[0]


def test_a_study_whose_store_is_another_s_now_touches_nothing(first: SweepStudy, tmp_path: Path) -> None:
    objects, name = store_of(first.sweep, first.folder).objects, first.sweep.name
    before, file = contents(objects), written(first.sweep, tmp_path)
    for line in (f"gc {name}", f"gc {name} --dry-run", f"resume {name}", f"launch {file}", f"rebuild-tracking {name}"):
        words = line.split()
        assert "belongs to another sweep" in refused(commanded(tmp_path / "two", *words))
    assert commanded(tmp_path / "two", "status", name).returncode == 0
    said: list[str] = []
    for dry_run in (True, False):
        collect(first.folder, None, dry_run, said.append)
    assert [line.split(",")[0] for line in said] == ["0 orphans", "0 orphans"]
    assert contents(objects) == before


def test_a_report_has_no_pictures_of_another_sweep(first: SweepStudy, tmp_path: Path) -> None:
    pictures = {}
    for root in ("one", "two"):
        page = tmp_path / root / "page.html"
        done = commanded(tmp_path / root, "report", first.sweep.name, "-o", str(page))
        assert done.returncode == 0, done.stderr
        pictures[root] = page.read_text().count("data:image/png")
    assert pictures["one"] - pictures["two"] == len(first.records())


def test_a_checkpoint_of_another_sweep_is_not_used_as_one_of_this_sweep(folder_sweep: Sweep, tmp_path: Path) -> None:
    left_sweep(tmp_path / "two", folder_sweep, kids=(), owned=False)
    study, store = left_sweep(tmp_path / "one", folder_sweep)
    trial = store.objects.local(trial_key(0))
    assert trial is not None
    for source in (trial, trial / "checkpoints" / "0000002000"):
        for command in ("score", "mix-study"):
            refused(commanded(tmp_path / "two", command, str(source), "--dataset", "mnist-mini"))
        check_scored(source, tmp_path / "one")
        check_scored(source, tmp_path / "nowhere")
    own, _ = left_sweep(tmp_path / "two", made_up.sweep("name=other"))
    check_scored(own.folder / "store" / trial_key(0), tmp_path / "two")
    assert study.id == owner(store.objects)


# Stores of earlier releases


def test_a_store_from_before_becomes_the_study_s(sweep: Sweep, tmp_path: Path) -> None:
    study, store = left_sweep(tmp_path / "one", sweep, owned=False)
    before = contents(store.objects)
    collect(study.folder, None, True, lambda text: None)
    assert contents(store.objects) == before, "a dry run writes nothing"
    collect(study.folder, None, False, lambda text: None)
    assert owner(store.objects) == study.id
    assert {key: data for key, data in contents(store.objects).items() if key != OWNER} == before


def test_what_a_trial_saved_and_did_not_report_may_be_in_the_store(folder_sweep: Sweep, tmp_path: Path) -> None:
    study, store = left_sweep(tmp_path / "one", folder_sweep, owned=False)
    save(store, study, 1, made_up.history(0.6, 0.5))
    take(study)
    assert owner(store.objects) == study.id


def other_score(study: SweepStudy, number: int) -> None:
    history = made_up.history(*[0.123 for _ in study.record(number).rungs])
    save(store_of(study.sweep, study.folder), study, number, history)


def other_field(study: SweepStudy, number: int) -> None:
    save(store_of(study.sweep, study.folder), study, number, study.record(number).rungs, g_lr=0.0123)


def other_system(study: SweepStudy, number: int) -> None:
    save(store_of(study.sweep, study.folder), study, number, study.record(number).rungs, system="narman-dcgan")


def other_rungs(study: SweepStudy, number: int) -> None:
    rung = made_up.rung(500, 0.9)
    save(store_of(study.sweep, study.folder), study, number, [rung, *study.record(number).rungs])


def no_such_trial(study: SweepStudy, number: int) -> None:
    objects = store_of(study.sweep, study.folder).objects
    for each in objects.find(f"{trial_key(number)}/"):
        objects.put(each.key.replace(trial_key(number), trial_key(number + 90)), objects.get(each.key)[0])


def only_begun(study: SweepStudy, number: int) -> None:
    store_of(study.sweep, study.folder).claim(number + 90, 1)


DIFFERENCES: dict[Callable[[SweepStudy, int], None], str] = {
    other_score: r"trials/{:05d}/checkpoints/\d+[^:]*: its scores after 1,000 images are not those",
    other_field: r"trials/{:05d}/checkpoints/\d+[^:]*: its g_lr is 0\.0123, and in this sweep \d",
    other_system: r"trials/{:05d}/checkpoints/\d+[^:]*: its system is narman-dcgan, and in this sweep narman-cgan",
    other_rungs: r"trials/{:05d}/checkpoints/\d+[^:]*: it was scored after 500 images, and in this sweep it was not",
    no_such_trial: r"this sweep has no trial \S*trials/{:05d}",
    only_begun: r"this sweep has no trial \S*trials/{:05d}",
}


@pytest.mark.parametrize("differ", DIFFERENCES, ids=lambda each: each.__name__)
def test_a_store_from_before_with_something_of_another_sweep_is_refused_with_the_first_of_it(
    sweep: Sweep, tmp_path: Path, differ: Callable[[SweepStudy, int], None]
) -> None:
    study, store = left_sweep(tmp_path / "one", sweep, owned=False)
    for number in (2, 1):
        differ(study, number)
    before = contents(store.objects)
    named = 91 if differ in (no_such_trial, only_begun) else 1
    for words in (["gc", sweep.name], ["gc", sweep.name, "--dry-run"], ["resume", sweep.name]):
        said = refused(commanded(tmp_path / "one", *words))
        assert re.search(DIFFERENCES[differ].format(named), said), said
        assert "does not say whose it is" in said
    assert contents(store.objects) == before


def test_what_no_trial_has_written_is_nobody_s(sweep: Sweep, tmp_path: Path) -> None:
    study, store = left_sweep(tmp_path / "one", sweep, owned=False)
    for key in ("trials/odd/thing", "trials/00099", "probe/0123", "extractors/0123"):
        store.objects.put(key, b"?")
    take(study)
    assert owner(store.objects) == study.id


def test_a_new_sweep_takes_no_store_from_before(sweep: Sweep, tmp_path: Path) -> None:
    _, store = left_sweep(tmp_path / "one", sweep, owned=False)
    before = contents(store.objects)
    assert "this sweep has no trial" in refused(commanded(tmp_path / "two", "launch", written(sweep, tmp_path)))
    assert contents(store.objects) == before


@pytest.mark.parametrize("file", [MANIFEST, STATE])
@pytest.mark.parametrize("data", [b"", b"[]", b"\xff" * 20, b'{"history": 3}'], ids=repr)
def test_damaged_checkpoints_say_nothing(sweep: Sweep, tmp_path: Path, file: str, data: bytes) -> None:
    study, store = left_sweep(tmp_path / "one", sweep, owned=False)
    (name,) = names(store.objects, trial_key(1))
    store.objects.put(key_of(trial_key(1), name, file), data)
    take(study)
    assert owner(store.objects) == study.id


@pytest.mark.parametrize("file", [MANIFEST, STATE])
def test_a_pipe_in_place_of_a_file_is_not_waited_for(folder_sweep: Sweep, tmp_path: Path, file: str) -> None:
    study, store = left_sweep(tmp_path / "one", folder_sweep, owned=False)
    path = store.objects.local(key_of(trial_key(1), names(store.objects, trial_key(1))[0], file))
    assert path is not None
    path.unlink()
    os.mkfifo(path)
    take(study)
    assert owner(store.objects) == study.id


# Who is first, and what is left by a kill or a damage


def take(study: SweepStudy, upgrade: bool = False) -> None:
    """As the study's driver does."""
    with hold_lease(study.sweep.name, study.folder, study.lease_records) as lease:
        study.drive(lease)
        take_store(study)
        if upgrade:
            study.upgrade()


def test_of_two_first_launches_at_once_one_has_the_store(sweep: Sweep, tmp_path: Path) -> None:
    roots, won, begin = [tmp_path / name for name in ("one", "two", "three")], [], threading.Barrier(3)
    studies = []
    for root in roots:
        (root / sweep.name).mkdir(parents=True)
        studies.append(SweepStudy.create(root / sweep.name, sweep, counts=False))

    def launched(study: SweepStudy) -> None:
        begin.wait()
        with suppress(ForeignStoreError), undone_if_foreign(study.folder):
            take(study, upgrade=True)
            won.append(study)

    threads = [threading.Thread(target=launched, args=(study,)) for study in studies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert owner(store_of(sweep, won[0].folder).objects) == won[0].id
    assert [root for root in roots if (root / sweep.name).exists()] == [won[0].folder.parent]
    assert SweepStudy.open(won[0].folder) is not None


def test_a_launch_that_was_killed_after_it_took_the_store_goes_on(folder_sweep: Sweep, tmp_path: Path) -> None:
    folder = tmp_path / "one" / folder_sweep.name
    folder.mkdir(parents=True)
    study = SweepStudy.create(folder, folder_sweep, counts=False)
    take(study)
    assert SweepStudy.open(folder) is None
    check_store_owner(folder_sweep, folder, lambda: None)
    with pytest.raises(ForeignStoreError):
        check_store_owner(folder_sweep, tmp_path / "two" / folder_sweep.name, lambda: None)
    again = SweepStudy.create(folder, folder_sweep, counts=False)
    take(again, upgrade=True)
    assert again.id == study.id
    assert SweepStudy.open(folder) is not None


def test_a_study_that_counts_is_never_undone(folder_sweep: Sweep, tmp_path: Path) -> None:
    study, _ = left_sweep(tmp_path / "one", folder_sweep)
    with pytest.raises(ForeignStoreError), undone_if_foreign(study.folder):
        raise ForeignStoreError
    assert SweepStudy.open(study.folder) is not None


@pytest.mark.parametrize("data", [b"", b"[]", b"\xff", b'{"format": 1}', b'{"format": 1, "id": "x"', b"3"], ids=repr)
def test_a_damaged_owner_is_named_and_nothing_is_deleted(folder_sweep: Sweep, tmp_path: Path, data: bytes) -> None:
    study, store = left_sweep(tmp_path / "one", folder_sweep)
    store.objects.put(OWNER, data)
    before = contents(store.objects)
    with pytest.raises(InputError, match=r"shared/made-up/study is damaged.*delete that one object"):
        collect(study.folder, None, False, lambda text: None)
    assert contents(store.objects) == before
    store.objects.delete([OWNER])
    collect(study.folder, None, False, lambda text: None)
    assert owner(store.objects) == study.id


def test_an_owner_in_a_newer_format_is_refused(folder_sweep: Sweep, tmp_path: Path) -> None:
    study, store = left_sweep(tmp_path / "one", folder_sweep)
    store.objects.put(OWNER, b'{"format": 9, "whose": "?"}')
    with pytest.raises(InputError, match=r"format 9.*install a newer gansweep"):
        collect(study.folder, None, False, lambda text: None)


@pytest.mark.parametrize("path", ["shared", "shared/below", "shared/made-up"])
def test_a_store_that_is_no_folder_is_refused_with_one_sentence(tmp_path: Path, path: str) -> None:
    (tmp_path / "shared").write_text("a file")
    file = written(made_up.sweep(f"store={{path: {tmp_path / path}}}"), tmp_path)
    done = commanded(tmp_path / "one", "launch", file)
    assert done.returncode == 2
    assert f"cannot be used: {tmp_path / 'shared'} is no folder" in done.stderr
    assert not (tmp_path / "one" / "made-up").exists()
