"""The long form of the kills: `python -m tests.faults --kills=60`."""

import argparse
import collections
import tempfile
from pathlib import Path

from tests.faults.kills_test import tried

parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
parser.add_argument("--kills", type=int, default=60)
parser.add_argument("--seed", type=int, default=0)
wanted = parser.parse_args()
with tempfile.TemporaryDirectory() as folder:
    stages, unequal = tried(Path(folder), kills=wanted.kills, seed=wanted.seed)
print(f"{len(stages)} kills: {dict(collections.Counter(stages))}")
for run, names in unequal.items():
    print(f"{run}: not as without kills: {', '.join(names)}")
raise SystemExit(1 if unequal else 0)
