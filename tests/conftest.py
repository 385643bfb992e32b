"""Tests run on eight virtual CPU devices, from the checkout's root, alike on every machine."""

import ctypes
import gc
import os
import shutil
import sys
import tempfile
from pathlib import Path

import psutil
import pytest
from hypothesis import HealthCheck, settings
from jaxtyping import install_import_hook

from tests import compilation, shapes

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# With eight devices, device-count invariance can be shown anywhere.
os.environ["XLA_FLAGS"] = (
    f"{os.environ.get('XLA_FLAGS', '')} {compilation.flags(devices=8)}".strip()
)
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# A cluster's node says so here, and JAX would look for the other processes of the job.
for name in [*os.environ]:
    if name.startswith(("KUBERNETES_", "OMPI_", "PMI", "SLURM_")):
        del os.environ[name]
for name in ("no_proxy", "NO_PROXY"):
    os.environ[name] = ",".join([*filter(None, [os.environ.get(name)]), "localhost", "127.0.0.1"])

# The same examples each time, however slow the machine is, and nothing written into the checkout.
os.environ.setdefault(
    "HYPOTHESIS_STORAGE_DIRECTORY", f"{tempfile.gettempdir()}/hypothesis-{os.getuid()}"
)
settings.register_profile(
    "steady",
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    print_blob=True,
)
settings.load_profile("steady")

ROOM = 6 << 30
"""Bytes that a process may take before it lets go of compiled programs."""
SHORT = 4 << 30
"""Bytes of the machine's memory that are to stay free."""

# The packages whose functions are called with checks of their arrays.
CHECKED = [
    "dsirm_jax.ahead",
    "dsirm_jax.encoder",
    "dsirm_jax.generator",
    "dsirm_jax.metrics",
    "dsirm_jax.quantizer",
    "dsirm_jax.relevance",
    "dsirm_jax.report",
    "dsirm_jax.serving",
    "dsirm_jax.sids",
    "dsirm_jax.stages",
    "dsirm_jax.training",
]
install_import_hook(CHECKED, f"{shapes.__name__}.checked")


# A program that one process has compiled is read by all others of the same call of pytest, those
# that commands run in among them, and of several calls where the variable names a folder. The first
# process makes one otherwise, which the others inherit.
PROGRAMS = "JAX_COMPILATION_CACHE_DIR"
os.environ |= {
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}


def pytest_addoption(parser):
    """Where all cases ran with another Python, one of each test shows what this one makes of it."""
    parser.addoption(
        "--one-case", action="store_true", help="run the first case of each test alone"
    )


def pytest_collection_modifyitems(config, items):
    """Leaves out all cases of a test but the first."""
    if config.getoption("--one-case"):
        first = {item.nodeid.partition("[")[0]: item.nodeid for item in reversed(items)}
        kept = set(first.values())
        config.hook.pytest_deselected(items=[item for item in items if item.nodeid not in kept])
        items[:] = [item for item in items if item.nodeid in kept]


def pytest_collection_finish():
    """What was imported stays, and need not be looked at whenever tracing makes many objects."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def pytest_sessionfinish():
    """Extensions complain at the end of what then still stays."""
    gc.unfreeze()


def pytest_configure(config):
    """Makes the folder of compiled programs, which is gone at the end."""
    if PROGRAMS not in os.environ:
        os.environ[PROGRAMS] = tempfile.mkdtemp(prefix="programs-")
        config.add_cleanup(lambda: shutil.rmtree(os.environ.pop(PROGRAMS), ignore_errors=True))


def pytest_sessionstart():
    """Tests name files of the checkout relative to its root, wherever pytest is started."""
    os.chdir(Path(__file__).parents[1])


@pytest.fixture(scope="module", autouse=True)
def room():
    """Lets go of what a process has compiled, once that is much: two of them share a machine.

    What is compiled anew costs a tenth of all tests' time where that happens after every module.
    """
    yield
    is_much = psutil.Process().memory_info().rss > ROOM
    if (is_much or psutil.virtual_memory().available < SHORT) and "jax" in sys.modules:
        sys.modules["jax"].clear_caches()
        gc.collect()
        if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):  # of glibc
            trim(0)
