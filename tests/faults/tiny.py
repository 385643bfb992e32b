"""The smallest job that runs every stage, for faults that are tried many times."""

import itertools
from pathlib import Path

from tests.job.tiny import NO_ABLATION, TINY

FLAGS = [
    *TINY,
    *NO_ABLATION,
    "--gin.encode/settings.Training.checkpoint_every=2",
    "--gin.quantize/settings.Training.checkpoint_every=3",
    "--gin.generate/settings.Training.checkpoint_every=3",
]
UNEQUAL = ("stage.json", "config.gin", "index.html")
"""They hold times, and the name of the folder."""


def artefacts(model_dir):
    """Returns the contents of all that a run's stages made, by path."""
    files = (path for path in Path(model_dir).rglob("*") if path.is_file())
    relative = {path.relative_to(model_dir): path for path in files}
    left_out = {"checkpoints", "logs", "locks", "replaced", "processes"}
    return {
        str(name): path.read_bytes()
        for name, path in relative.items()
        if not left_out.intersection(name.parts) and name.name not in UNEQUAL
    }


def differing(one, other):
    """Returns the paths of what two runs do not have alike."""
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))


def places(sizes, *, number, generator):
    """Yields files and places in them: every file once, then those that chance takes.

    Args:
      sizes: bytes of each file.
      number: of places.
      generator: of random numbers.
    """
    names = [name for name, size in sorted(sizes.items()) if size]
    further = generator.choice(len(names), size=max(number - len(names), 0))
    for name in itertools.islice([*names, *(names[row] for row in further)], number):
        yield name, int(generator.integers(sizes[name]))
