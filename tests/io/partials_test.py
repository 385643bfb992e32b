"""What killed writers have left is removed; what others write, and whole files, are not."""

import os
import socket
import subprocess
import sys

from dsirm_jax.io.files import remove_partials, replacing

WRITE = """
import os, sys
from dsirm_jax.io.files import replacing
with replacing(sys.argv[1]) as partial:
    partial.write_text("half")
    print(partial, flush=True)
    if len(sys.argv) > 2:
        sys.stdin.read()
    os._exit(9)
"""


def begun(path, *flags):
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITE, str(path), *flags],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    return writer, writer.stdout.readline().strip()


def test_partial_files_of_the_dead_are_removed(tmp_path):
    (tmp_path / "sids.parquet").write_text("whole")
    killed, left = begun(tmp_path / "sids.parquet")
    killed.communicate()
    below, left_below = begun(tmp_path / "head" / "full.json")
    below.communicate()
    folder = tmp_path / f"model.partial-{socket.gethostname()}-{killed.pid}"
    (folder / "deep").mkdir(parents=True)
    living, held = begun(tmp_path / "beams.parquet", "--wait")
    kept = [
        tmp_path / f"a.partial-elsewhere-{killed.pid}",
        tmp_path / f"a.partial-{socket.gethostname()}-{killed.pid}.txt",
        tmp_path / "my.partial-notes",
    ]
    for path in kept:
        path.write_text("mine")
    assert sorted(map(str, remove_partials(tmp_path))) == sorted([left, left_below, str(folder)])
    remaining = {str(path) for path in tmp_path.rglob("*") if path.is_file()}
    assert remaining == {held, str(tmp_path / "sids.parquet"), *map(str, kept)}
    living.communicate()
    assert [*map(str, remove_partials(tmp_path))] == [held]


def test_a_process_with_the_number_of_one_before_removes_what_that_left(tmp_path):
    with replacing(tmp_path / "a.json") as partial:
        name = partial.name
        partial.write_text("whole")
    (tmp_path / name).write_text("half")
    assert name.endswith(f"-{os.getpid()}")
    assert remove_partials(tmp_path) == [tmp_path / name]


def test_a_missing_folder_has_none(tmp_path):
    assert remove_partials(tmp_path / "none") == []
