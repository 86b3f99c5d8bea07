"""The folder of a page's files: removed at the end, or by a later start; nobody else's ever."""

import os
import signal
import stat
import subprocess
import sys

import pytest

from unilens.app import jobs, temporary
from unilens.app.files import VisitorFiles
from unilens.app.jobs import Job
from unilens.app.runner import JobRunner
from unilens.app.temporary import page_folder, remove_abandoned
from unilens.cli import page as page_command
from unilens.errors import UnilensError

fcntl = pytest.importorskip("fcntl", reason="this system locks files in another way")


@pytest.fixture
def abandoned(tmp_path):
    """Return the folder of a process that ended without removing it."""
    folder = tmp_path / "unilens-app-dead"
    (folder / "gradio" / "sent").mkdir(parents=True)
    (folder / "gradio" / "sent" / "photo.png").write_bytes(b"x")
    (folder / "lock").touch()
    folder.chmod(0o700)
    return folder


def test_folder_is_private_and_removed_at_the_end(tmp_path):
    with page_folder(tmp_path) as folder:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert [path.name for path in folder.iterdir()] == ["lock"]
        (folder / "photo.png").write_bytes(b"x")
    assert not list(tmp_path.iterdir())


def test_folder_is_removed_after_an_error(tmp_path):
    def fail():
        with page_folder(tmp_path):
            raise SystemExit(129)

    with pytest.raises(SystemExit):
        fail()
    assert not list(tmp_path.iterdir())


def test_a_later_start_removes_the_folder_of_a_dead_process(tmp_path, abandoned):
    with page_folder(tmp_path) as folder:
        assert [path.name for path in tmp_path.iterdir()] == [folder.name]


def test_the_folder_of_a_live_process_is_left(tmp_path):
    with page_folder(tmp_path) as first, page_folder(tmp_path) as second:
        assert remove_abandoned(tmp_path) == []
        assert first.exists()
        assert second.exists()


def test_a_folder_that_is_being_made_is_left(tmp_path, abandoned):
    (abandoned / "lock").rename(abandoned / "lock.new")
    assert remove_abandoned(tmp_path) == []
    assert abandoned.exists()


def _shared(folder):
    folder.chmod(0o770)


def _held(folder):
    file = os.open(folder / "lock", os.O_RDWR)
    fcntl.flock(file, fcntl.LOCK_EX)
    return file


def _lock_is_a_link(folder):
    (folder / "lock").rename(folder.parent / "elsewhere")
    (folder / "lock").symlink_to(folder.parent / "elsewhere")


def _lock_is_a_folder(folder):
    (folder / "lock").unlink()
    (folder / "lock").mkdir()


def _lock_is_a_pipe(folder):
    (folder / "lock").unlink()
    os.mkfifo(folder / "lock")


def _no_lock(folder):
    (folder / "lock").unlink()


def _is_a_link(folder):
    folder.rename(folder.parent / "target")
    folder.symlink_to(folder.parent / "target")


def _is_a_file(folder):
    for path in (folder / "gradio" / "sent" / "photo.png", folder / "lock"):
        path.unlink()
    for path in (folder / "gradio" / "sent", folder / "gradio", folder):
        path.rmdir()
    folder.touch()


def _has_another_name(folder):
    folder.rename(folder.parent / "other-app-dead")


@pytest.mark.parametrize(
    "change",
    [
        *(_shared, _held, _lock_is_a_link, _lock_is_a_folder, _lock_is_a_pipe, _no_lock),
        *(_is_a_link, _is_a_file, _has_another_name),
    ],
)
def test_what_is_not_ours_is_left(tmp_path, abandoned, change):
    file = change(abandoned)
    before = sorted(tmp_path.rglob("*"))
    assert remove_abandoned(tmp_path) == []
    assert sorted(tmp_path.rglob("*")) == before
    if file is not None:
        os.close(file)


def test_the_folder_of_another_user_is_left(tmp_path, abandoned, monkeypatch):
    monkeypatch.setattr(temporary.os, "getuid", lambda: abandoned.stat().st_uid + 1)
    assert remove_abandoned(tmp_path) == []
    assert abandoned.exists()


def test_links_in_a_dead_folder_are_not_followed(tmp_path, abandoned):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept.txt").write_text("x")
    (abandoned / "gradio" / "link").symlink_to(outside)
    (abandoned / "gradio" / "file").symlink_to(outside / "kept.txt")
    assert remove_abandoned(tmp_path) == [abandoned]
    assert (outside / "kept.txt").read_text() == "x"


KILLED = """
import os, signal, sys
from pathlib import Path
from unilens.app.temporary import page_folder
with page_folder(Path(sys.argv[1])) as folder:
    (folder / "photo.png").write_bytes(b"x")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_start_after_sigkill_removes_the_photographs(tmp_path):
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
    assert done.returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    assert (left / "photo.png").exists()
    assert remove_abandoned(tmp_path) == [left]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("ignored", [False, True])
def test_signals_end_the_page_as_ctrl_c_does(number, ignored):
    before = {one: signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGHUP)}
    try:
        signal.signal(number, signal.SIG_IGN if ignored else signal.SIG_DFL)
        page_command.end_on_signals()
        if ignored:  # as nohup asks for
            assert signal.getsignal(number) is signal.SIG_IGN
        else:
            with pytest.raises(SystemExit) as ended:
                signal.raise_signal(number)
            assert ended.value.code == 128 + number
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


# quotas


@pytest.mark.parametrize(("of_one", "of_all", "left"), [(3, 9, 3), (9, 4, 4), (9, 9, 6)])
def test_the_newest_files_are_kept(tmp_path, monkeypatch, of_one, of_all, left):
    monkeypatch.setattr("unilens.app.files.MAX_FILES_OF_ONE", of_one)
    monkeypatch.setattr("unilens.app.files.MAX_FILES_OF_ALL", of_all)
    files, paths = VisitorFiles(tmp_path), []
    for number in range(6):
        paths.append(files.write(f"key {number}", "a.csv", b"x", "visitor"))
        os.utime(paths[-1], (number, number))
        files.make_room("visitor")
    there = [number for number, path in enumerate(paths) if os.path.exists(path)]  # noqa: PTH110
    assert there == list(range(6))[-left:]
    assert len([path for path in tmp_path.rglob("*") if path.is_dir()]) <= left + 2


def test_bytes_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr("unilens.app.files.MAX_BYTES_OF_ONE", 1000)
    files = VisitorFiles(tmp_path)
    mine = [files.write(str(number), "a.csv", bytes(400), "me") for number in range(8)]
    other = files.write("0", "a.csv", bytes(400), "other")
    assert sum(os.path.getsize(path) for path in mine if os.path.exists(path)) <= 1000  # noqa: PTH110, PTH202
    assert os.path.exists(mine[-1])  # noqa: PTH110
    assert os.path.exists(other)  # noqa: PTH110


def test_links_are_removed_and_not_followed(tmp_path, monkeypatch):
    monkeypatch.setattr("unilens.app.files.MAX_FILES_OF_ALL", 1)
    (tmp_path / "kept.txt").write_text("x")
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "link").symlink_to(tmp_path / "kept.txt")
    VisitorFiles(tmp_path / "own").write("key", "a.csv", b"x")
    assert (tmp_path / "kept.txt").exists()


def test_work_ends_after_its_time(monkeypatch):
    monkeypatch.setattr(jobs, "MAX_SECONDS", 60.0)
    now = [1000.0]
    monkeypatch.setattr(jobs.time, "monotonic", lambda: now[0])
    runner, job = JobRunner(), Job()

    def passes():
        now[0] += 50
        runner.on_pass(1)

    runner.run("one", job, passes)
    now[0] += 5000  # waiting for others does not count
    with pytest.raises(UnilensError, match="expected work of at most 1 minutes"):
        runner.run("two", job, passes)


def test_work_that_waited_does_not_begin_when_the_page_is_closed():
    runner = JobRunner()
    runner.close()
    with pytest.raises(jobs.Cancelled):
        runner.run("key", Job(), lambda: pytest.fail("it has begun"))
