"""What the disk refuses is one line: the path, what the system says of it, and the mend."""

import errno
import os
import subprocess
import sys

import pytest

from dsirm_jax.io import disk
from dsirm_jax.io.errors import InputError, StorageError

ROOM = "make room, and run the same again, which goes on from here"
PLACE = "let this user write there or name another place, and run the same again, which goes on"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        pytest.param(
            OSError(errno.ENOSPC, "No space left on device"),
            f"out/x: No space left on device; {ROOM}",
            id="full, of a file that is open",
        ),
        pytest.param(
            OSError(errno.EDQUOT, "Disk quota exceeded", "/a/b"),
            f"/a/b: Disk quota exceeded; {ROOM}",
            id="quota",
        ),
        pytest.param(
            OSError(errno.EROFS, "Read-only file system", "/a/b.partial-host-7"),
            f"/a/b: Read-only file system; {PLACE}",
            id="read-only, of a partial file",
        ),
        pytest.param(
            OSError(errno.EACCES, "Permission denied", b"/a/b"),
            f"/a/b: Permission denied; {PLACE}",
            id="permission",
        ),
        pytest.param(
            OSError(errno.EIO, "Input/output error"),
            "out/x: Input/output error; look at the disk",
            id="broken",
        ),
        pytest.param(
            RuntimeError("UNKNOWN: /tmp/x/data; No space left on device [Op:Write]"),
            f"/tmp/x/data: No space left on device; {ROOM}",
            id="of another library, which names a path",
        ),
        pytest.param(
            Exception("mdb_txn_commit: No space left on device"),
            f"out/x: No space left on device; {ROOM}",
            id="of another library, which names none",
        ),
        pytest.param(
            OSError("100000 requested and 2484 written"),
            f"out/x: No space left on device; {ROOM}",
            id="of NumPy",
        ),
        pytest.param(
            FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']"),
            "TMPDIR: No usable temporary directory found in ['/tmp']; set it to a folder",
            id="no temporary folder",
        ),
        pytest.param(InputError("x: No space left on device"), "out/x: No space", id="its text"),
    ],
)
def test_the_fault_of_a_disk(error, line):
    assert str(disk.fault(error, place="out/x")).startswith(line)
    with pytest.raises(StorageError) as caught, disk.writing("out/x"):
        raise error
    assert str(caught.value).startswith(line)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(ValueError("out of range"), id="a bug"),
        pytest.param(FileNotFoundError(errno.ENOENT, "No such file", "/a"), id="no such file"),
        pytest.param(PermissionError(errno.EPERM, "Operation not permitted"), id="no file at all"),
        pytest.param(ConnectionResetError(errno.ECONNRESET, "reset"), id="of a network"),
        pytest.param(InputError("items.csv, row 3: no id"), id="of the user's"),
    ],
)
def test_what_is_none(error):
    assert disk.fault(error) is None
    with pytest.raises(type(error)) as caught, disk.writing("out/x"):
        raise error
    assert caught.value is error


def test_a_cause_is_found_and_a_suppressed_one_is_not():
    full = OSError(errno.ENOSPC, "No space left on device", "/a")
    for suppressed in (False, True):
        try:
            try:
                raise full
            except OSError:
                raise RuntimeError("later") from (None if suppressed else full)
        except RuntimeError as error:
            assert (disk.fault(error) is None) == suppressed


def test_a_file_of_the_users_that_cannot_be_read_is_no_fault_of_the_disk():
    try:
        raise PermissionError(errno.EACCES, "Permission denied", "/a")
    except OSError as cause:
        error = InputError("/a: not readable")
        error.__cause__ = cause
    assert disk.fault(error) is None
    error.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    assert str(disk.fault(error, place="/tmp")).startswith("/tmp: No space left")


def test_the_innermost_path_is_named():
    with (
        pytest.raises(StorageError) as caught,
        disk.writing("outer"),
        disk.writing("inner"),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert str(caught.value).startswith("inner: ")
    assert caught.value.errno == errno.ENOSPC


def test_standard_output_that_is_full_is_named():
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full")
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "dsirm_jax", "--help"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.stderr == f"dsirm: standard output: No space left on device; {ROOM}\n"
    assert done.returncode == 1
