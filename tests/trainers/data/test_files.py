"""Shared files are whole or absent, and one holder has the lock."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from trainers.data.files import digest, locked, replaced


def test_a_file_is_replaced_when_the_block_ends_well(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    with replaced(path) as temporary:
        temporary.write_text("whole")
        assert not path.exists()
    assert path.read_text() == "whole"
    assert list(path.parent.iterdir()) == [path]


def test_a_file_stays_as_it_was_when_the_block_fails(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError):
        fail_halfway(path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_lock_has_one_holder(tmp_path: Path) -> None:
    entered = threading.Event()

    def enter() -> None:
        with locked(tmp_path / "file"):
            entered.set()

    other = threading.Thread(target=enter, daemon=True)
    with locked(tmp_path / "file"):
        other.start()
        assert not entered.wait(0.2)
    assert entered.wait(240)


def test_checksums_are_the_standard_ones(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    assert digest(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert digest(path, "md5") == "900150983cd24fb0d6963f7d28e17f72"


def test_a_link_stays_and_leads_to_the_new_file(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "file").write_text("old")
    (tmp_path / "link").symlink_to("elsewhere/file")
    (tmp_path / "second").symlink_to(tmp_path / "link")
    with replaced(tmp_path / "second") as temporary:
        temporary.write_text("new")
        assert (elsewhere / "file").read_text() == "old"
    assert (tmp_path / "link").readlink() == Path("elsewhere/file")
    assert (tmp_path / "second").is_symlink()
    assert (elsewhere / "file").read_text() == "new"
    assert list(elsewhere.iterdir()) == [elsewhere / "file"]


def test_a_link_to_nothing_stays_and_leads_to_the_new_file(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "not" / "yet")
    with pytest.raises(ZeroDivisionError):
        fail_halfway(tmp_path / "link")
    assert [path.name for path in tmp_path.iterdir()] == ["link"]
    write(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "not" / "yet").read_text() == "new"


def test_links_in_a_circle_are_refused(tmp_path: Path) -> None:
    for name, other in (("a", "b"), ("b", "a")):
        (tmp_path / name).symlink_to(other)
    with pytest.raises(OSError, match=r"Too many levels of symbolic links.*/a'$"):
        write(tmp_path / "a", "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_another_name_of_a_file_keeps_its_content(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    (tmp_path / "backup").hardlink_to(tmp_path / "file")
    write(tmp_path / "file", "new")
    assert ((tmp_path / "file").read_text(), (tmp_path / "backup").read_text()) == ("new", "old")


@pytest.mark.parametrize("through", [False, True])
def test_a_folder_is_refused_before_the_work_and_nothing_is_left(tmp_path: Path, through: bool) -> None:
    (tmp_path / "folder").mkdir()
    path = tmp_path / "folder"
    if through:
        path = tmp_path / "link"
        path.symlink_to("folder")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(IsADirectoryError) as caught, replaced(path):
        pytest.fail("the block was entered")
    assert caught.value.filename == str(path)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("place", ["new/deep/" + "n" * 300, "file/below", "n/" * 2100 + "x"])
def test_an_impossible_place_is_named_and_nothing_is_left(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("old")
    with pytest.raises(OSError, match=r"\[Errno \d+\]") as caught:
        write(tmp_path / place, "new")
    assert caught.value.filename == str(tmp_path / place)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_the_longest_name_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / ("ä" * 127)
    for content in ("old", "new"):
        write(path, content)
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_written_to_a_device_leaves_it_a_device(tmp_path: Path) -> None:
    # A device of the test's own would need rights, so nothing but links to the system's can be made here.
    (tmp_path / "nowhere").symlink_to("/dev/null")
    (tmp_path / "full").symlink_to("/dev/full")
    for path in (Path("/dev/null"), tmp_path / "nowhere"):
        write(path, "text" * 10_000)
        assert path.is_char_device()
    for path in (Path("/dev/full"), tmp_path / "full"):
        with pytest.raises(OSError, match="No space left on device") as caught:
            write(path, "text" * 10_000)
        assert caught.value.filename == str(path)
        assert path.is_char_device()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full", "nowhere"]


def test_the_reader_of_a_pipe_gets_all_that_was_written(tmp_path: Path) -> None:
    pipe, got, text = tmp_path / "pipe", tmp_path / "got", "line\n" * 100_000
    os.mkfifo(pipe)
    with got.open("w") as file, subprocess.Popen(["cat", str(pipe)], stdout=file):
        write(pipe, text)
    assert got.read_text() == text
    assert pipe.is_fifo()
    assert sorted(tmp_path.iterdir()) == [got, pipe]


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "link"])
def test_standard_output_has_what_was_written_between_what_was_printed(tmp_path: Path, name: str) -> None:
    (tmp_path / "link").symlink_to("/dev/stdout")
    code = (
        "import pathlib, sys\nfrom trainers.data.files import replaced\nprint('before')\n"
        "with replaced(pathlib.Path(sys.argv[1])) as file: file.write_text('content\\n')\nprint('after')"
    )
    command = [sys.executable, "-c", code, name]
    with open(tmp_path / "output", "w") as output:
        output.write("first\n")
        output.flush()
        subprocess.run(command, cwd=tmp_path, stdout=output, check=True)
    assert (tmp_path / "output").read_text() == "first\nbefore\ncontent\nafter\n"
    piped = subprocess.run(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True, check=True)
    assert piped.stdout == "before\ncontent\nafter\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "output"]


def test_a_full_disk_is_named_by_the_file_and_leaves_the_old_one(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    code = (
        "import pathlib, resource, safetensors.torch, torch\nfrom trainers.data.files import replaced\n"
        "from trainers.errors import fault_of_file\nresource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))\n"
        "for save in (lambda path: path.write_text('x' * 50), lambda path: path.write_bytes(bytes(100_000)),\n"
        "             lambda path: safetensors.torch.save_file({'x': torch.zeros(9)}, path)):\n"
        "    try:\n        with replaced(pathlib.Path('file')) as temporary: save(temporary)\n"
        "    except OSError as error: print(fault_of_file(error))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert done == ["file: File too large; make space, then give the same command again"] * 3
    assert (tmp_path / "file").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def write(path: Path, text: str) -> None:
    with replaced(path) as temporary:
        temporary.write_text(text)


def fail_halfway(path: Path) -> None:
    with replaced(path) as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
