"""A file is the old one or the new one, whatever happens, and a loss of power too."""

import os
import resource
from contextlib import contextmanager
from pathlib import Path

import pytest

from dsirm_jax.io import files
from dsirm_jax.io.errors import StorageError


@contextmanager
def no_file_above(size):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def calls(monkeypatch):
    """What is asked of the system, in order: paths that are on the disk, and renames."""
    done = []
    fsync, replace, rename = os.fsync, os.replace, os.rename

    def synced(descriptor):
        fsync(descriptor)
        done.append(("on disk", Path(os.readlink(f"/proc/self/fd/{descriptor}")).name))

    def replaced(source, target):
        replace(source, target)
        done.append(("named", Path(target).name))

    def renamed(source, target):
        rename(source, target)
        done.append(("named", Path(target).name))

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", replaced)
    monkeypatch.setattr(os, "rename", renamed)
    return done


def test_a_file_is_on_the_disk_before_it_has_its_name_and_the_name_after(tmp_path, calls):
    folder = tmp_path / "out"
    with files.replacing(folder / "a.txt") as partial:
        partial.write_text("new")
    assert calls == [("on disk", partial.name), ("named", "a.txt"), ("on disk", "out")]
    assert (folder / "a.txt").read_text() == "new"
    assert os.listdir(folder) == ["a.txt"]


def test_a_folder_is_on_the_disk_with_all_below_it(tmp_path, calls):
    (tmp_path / "old/deep").mkdir(parents=True)
    (tmp_path / "old/a").write_text("a")
    (tmp_path / "old/deep/b").write_text("b")
    (tmp_path / "old/deep/nowhere").symlink_to("nowhere")
    (tmp_path / "new").mkdir()
    files.sync_tree(tmp_path / "old")
    assert sorted(calls) == [("on disk", name) for name in ("a", "b", "deep", "old")]
    calls.clear()
    files.rename_folder(tmp_path / "old", tmp_path / "new/old")
    assert calls[0] == ("named", "old")
    assert sorted(calls[1:]) == sorted([("on disk", "new"), ("on disk", tmp_path.name)])
    assert (tmp_path / "new/old/deep/b").read_text() == "b"


def test_what_does_not_fit_leaves_the_old_file_and_no_part(tmp_path):
    files.write_text(tmp_path / "a.txt", "old")
    with no_file_above(100), pytest.raises(StorageError) as caught:
        files.write_text(tmp_path / "a.txt", "new" * 100)
    assert str(caught.value) == (
        f"{tmp_path}/a.txt: File too large; lift the limit of a file's size (ulimit -f), and run "
        "the same again, which goes on from here"
    )
    assert (tmp_path / "a.txt").read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        pytest.param("file/a.txt", "File exists; move what is there", id="in a file"),
        pytest.param("file/b/a.txt", "Not a directory; move the file", id="below a file"),
        pytest.param("x" * 250, "File name too long; name a folder", id="long name"),
    ],
)
def test_where_nothing_can_be(tmp_path, name, reason):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=reason) as caught:
        files.write_text(tmp_path / name, "new")
    assert str(caught.value).startswith(f"{tmp_path / name.split('/')[0]}")
    assert os.listdir(tmp_path) == ["file"]
