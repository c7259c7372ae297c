"""Runs that are killed, locked out, or out of disk: nothing is lost and nothing broken is taken for whole.

The long form, 20 moments: python tests/killing.py FOLDER
"""

import contextlib
import errno
import json
import os
import shutil
import subprocess
import sys
import time

import killing
import pytest

from deconv_jax.errors import InputError
from deconv_jax.system import locks


def test_a_run_that_is_killed_again_and_again_ends_as_a_calm_one(tmp_path):
    """kill -9 while storing, checkpointing and auralising: the same commands end with the same bits.

    Of the recipe: statistics of batch norm, averaged weights, crops and changes of clips come back with the step.
    """
    said = killing.in_turn(tmp_path / "runs", ("storing", "checkpointing", "auralising"), seed=1, variant="augmented")
    assert all(hit.startswith("killed") for hit in said), said


HOLDER = """
import sys, time
from deconv_jax.system import locks
with locks.writing(sys.argv[1], "out", share=eval(sys.argv[2])):
    print("mine", flush=True)
    time.sleep(60)
"""


def test_a_second_process_is_refused_until_the_first_is_gone(tmp_path):
    (tmp_path / ".123-0123abcd.partial").mkdir()
    (tmp_path / ".123-0123abce.partial").write_text("half")
    (tmp_path / "song").write_text("whole")
    process = subprocess.Popen([sys.executable, "-c", HOLDER, tmp_path, "(0, 1)"], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "mine\n"
        with (
            pytest.raises(InputError, match=rf"^out {tmp_path}: process {process.pid} on .* is at work there"),
            locks.writing(tmp_path, "out"),
        ):
            pass
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    with locks.writing(tmp_path, "out"):
        assert sorted(p.name for p in tmp_path.iterdir()) == [locks.LOCK, "song"]
    assert [p.name for p in tmp_path.iterdir()] == ["song"]


@pytest.mark.parametrize(
    ("held", "asked", "refused"),
    [
        ((0, 1), (1, 2), True),
        ((0, 2), (0, 1), True),
        ((0, 2), (0, 2), True),
        ((0, 2), (1, 3), True),
        ((0, 2), (1, 2), False),
    ],
)
def test_only_other_shares_of_one_work_go_in_together(tmp_path, held, asked, refused):
    process = subprocess.Popen([sys.executable, "-c", HOLDER, tmp_path, repr(held)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "mine\n"
        (tmp_path / ".1-0123abcd.partial").write_text("what the other one is writing")
        expected = (
            pytest.raises(InputError, match=f"process {process.pid} on ") if refused else contextlib.nullcontext()
        )
        with expected, locks.writing(tmp_path, "out", share=asked):
            pass
        assert (tmp_path / ".1-0123abcd.partial").exists()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    with locks.writing(tmp_path, "out"):
        assert [p.name for p in tmp_path.iterdir()] == [locks.LOCK]
    assert list(tmp_path.iterdir()) == []


TAKER = """
import os, sys, time
from deconv_jax.errors import InputError
from deconv_jax.system import locks
both, owned, end = 0, 0, time.monotonic() + 1.5
while time.monotonic() < end:
    try:
        with locks.writing(sys.argv[1], "out"):
            try:
                os.close(os.open(sys.argv[1] + "/mark", os.O_CREAT | os.O_EXCL))
                os.unlink(sys.argv[1] + "/mark")
            except FileExistsError:
                both += 1
            owned += 1
    except InputError:
        pass
print(owned, both)
"""


def test_two_processes_never_own_a_folder_at_the_same_time(tmp_path):
    """The lock file goes with its owner, while others have it open: filelock before 3.20.4 lets two in."""
    takers = [
        subprocess.Popen([sys.executable, "-c", TAKER, tmp_path], stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    for said in [process.communicate(timeout=60)[0].split() for process in takers]:
        assert int(said[0]) > 10
        assert said[1] == "0"
    assert list(tmp_path.iterdir()) == []


def test_what_fails_in_a_new_folder_before_it_is_written_leaves_none(tmp_path):
    with pytest.raises(KeyError), locks.writing(tmp_path / "new" / "out", "out"):
        raise KeyError
    assert not (tmp_path / "new" / "out").exists()
    (tmp_path / "file").touch()
    with (
        pytest.raises(InputError, match=rf"^out {tmp_path}/file: cannot be written \(File exists\); free"),
        locks.writing(tmp_path / "file", "out"),
    ):
        pass
    with (
        pytest.raises(InputError, match=r"cannot be written \(No space left on device\)"),
        locks.writing(tmp_path / "full", "out"),
    ):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_second_training_in_a_workdir_says_so_in_one_line(tmp_path):
    runs = killing.Runs(tmp_path)
    runs.workdir.mkdir()
    with locks.writing(runs.workdir, "workdir"):
        status = runs.begin(runs.train()).wait(timeout=300)
    said = (tmp_path / "said.txt").read_text().splitlines()
    assert status == 1
    assert said[-1].startswith(f"error: --workdir={runs.workdir}: process {os.getpid()} on ")


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 4 MB, where the tests may mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    done = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", place], capture_output=True
    )
    if not done or done.returncode:
        pytest.skip("a full disk is tried on a small tmpfs, which needs the right to mount one")
    yield place
    subprocess.run(["umount", place], check=True)


def test_a_full_disk_is_said_in_one_line_and_the_run_goes_on_when_there_is_room(small_disk, tmp_path):
    runs = killing.Runs(tmp_path)
    runs.workdir = small_disk / "run"
    flags = ["--config.train.checkpoint_steps=1", "--config.train.epochs=2"]
    filler = small_disk / "filler"
    process = runs.begin(runs.train(*flags))
    while not any(path.name.isdigit() for path in runs.workdir.glob("checkpoints/last/*")):
        assert process.poll() is None, (tmp_path / "said.txt").read_text()
        time.sleep(0.002)
    with open(filler, "wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError:
            pass
    status = process.wait(timeout=300)
    said = (tmp_path / "said.txt").read_text()
    assert status == 1, said
    # (If a checkpoint was under way just then, threads of TensorStore complain, too.)
    assert [line for line in said.splitlines() if line.startswith("error: ") and "space left" in line], said
    assert any(path.name.isdigit() for path in (runs.workdir / "checkpoints" / "last").iterdir())
    filler.unlink()
    runs.whole(runs.train(*flags))
    report = json.loads((runs.workdir / "report.json").read_text())
    assert report["steps"] == 2 * (report["clips"]["train"] // 4)
