"""What wants an accelerator, in one run of at most four minutes, without TensorFlow.

    PYTHONPATH=. python benchmarks/device.py [--quick] [--json FILE] [--bundle DIR] [--part NAME]

Every part is a process of its own: one that fails, hangs or runs out of memory ends alone. What it
found before stays, in the file too, and what it leaves of its time is the next one's. On a CPU, and
with --quick, models and tables are tiny. Rivals take part where they are installed.

golden      T5 and BERT beside transformers' stored answers; ours is the greatest difference, in
            units of the tolerance that tests have on a CPU
sids        share of vectors that get another SID here than on this machine's CPU, and how near a
            tie the widest of these is
bundle      beams, probabilities and scores here and on the CPU, of a made-up model or of --bundle,
            for which the package lmdb is needed
assign      SIDs of a memory-mapped file, items/s, beside copies of the same rows and nothing else
quantizer   ms of a training step beside its bare products, and vector-quantize-pytorch's
search      ms of a search whose logits are a table, beside STATIC's (module `static_decoding`); and
            of a search among existing SIDs beside one among all combinations of codes
features    millions of pairs whose prefix features are computed a second
encode      texts/s of a BERT of MiniLM's shape beside transformers', float32 and bfloat16
t5          ms, GiB of temporaries and TFLOP/s of a generator's training step, beside the most that
            the chip's maker states, and transformers' forward and backward pass

The first three are of parity: exit status 1 where one fails or a figure of ours is above its
bound.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from lines import append, print_heading, print_row

MINUTES = 4.0
GOODBYE = 5.0
"""Seconds in which a process that has found all ends by itself."""
SPAWN = multiprocessing.get_context("spawn")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part:
    """What one process does.

    Attributes:
      name: of the part.
      run: `module.function` of sizes, which yields its cases.
      options: further arguments of it.
      share: of the run's time, beside those of the other parts.
      is_parity: whether `ours` must not exceed `other` in any of its cases.
    """

    name: str
    run: str
    share: float
    is_parity: bool = False
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a part.

    Attributes:
      part: which one.
      cases: what it found.
      seconds: that it took.
      fault: why it did not come to its end; empty where it did.
    """

    part: Part
    cases: tuple[dict, ...]
    seconds: float
    fault: str = ""

    @property
    def has_parity(self) -> bool:
        """Whether nothing speaks against it, as far as the part is of parity."""
        if not self.part.is_parity:
            return True
        return not self.fault and all(case["ours"] <= case["other"] for case in self.cases)


def parts(bundle: Path | None) -> tuple[Part, ...]:
    """Returns all parts, in the order of their run."""
    return (
        Part(name="golden", run="device_parity.golden", share=0.09, is_parity=True),
        Part(name="sids", run="device_parity.sids", share=0.12, is_parity=True),
        Part(
            name="bundle",
            run="device_parity.bundle",
            options={"path": bundle},
            share=0.11,
            is_parity=True,
        ),
        Part(name="assign", run="device_stream.assign", share=0.08),
        Part(name="quantizer", run="device_models.quantizer", share=0.06),
        Part(name="search", run="device_search.search", share=0.15),
        Part(name="features", run="device_search.features", share=0.05),
        Part(name="encode", run="device_stream.encode", share=0.08),
        Part(name="t5", run="device_models.t5", share=0.26),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the parts, prints all cases and returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="tiny, as on a CPU")
    parser.add_argument("--json", type=Path, help="file of one JSON object a line")
    parser.add_argument(
        "--bundle", type=Path, help="folder of a bundle; what its cache answers is not read"
    )
    parser.add_argument("--part", action="append", metavar="NAME", help="this part, of several")
    parser.add_argument("--minutes", type=float, default=MINUTES, help=f"at most; {MINUTES:g}")
    given = parser.parse_args(arguments)
    if given.bundle and not given.bundle.is_dir():
        parser.error(f"--bundle={given.bundle}: no such folder")
    chosen = parts(given.bundle and given.bundle.absolute())
    if unknown := {*(given.part or ())} - {part.name for part in chosen}:
        names = ", ".join(part.name for part in chosen)
        parser.error(f"--part={min(unknown)}: give one of {names}")
    chosen = tuple(part for part in chosen if part.name in (given.part or [part.name]))
    # JAX would take most of a GPU's memory, and a rival in the same process has the rest.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    return run(chosen, seconds=60 * given.minutes, quick=given.quick, json=given.json)


def run(parts: Sequence[Part], *, seconds: float, quick: bool, json: Path | None) -> int:
    """Runs parts one after the other, prints a table and returns the exit status.

    Args:
      parts: to run.
      seconds: that all of them may take.
      quick: tiny sizes.
      json: file that each case is written to once it is known; None for none.
    """
    if json:
        json.write_text("")
    outcomes, spare, shares = [], 0.0, sum(part.share for part in parts)
    for part in parts:
        limit = seconds * part.share / shares + spare
        print(f"{part.name}: at most {limit:.0f} s", file=sys.stderr, flush=True)
        outcome = run_part(part, seconds=limit, quick=quick, json=json)
        outcomes.append(outcome)
        spare = max(limit - outcome.seconds, 0.0)
    show(outcomes)
    return 0 if all(outcome.has_parity for outcome in outcomes) else 1


def show(outcomes: Sequence[Outcome]) -> None:
    """Prints what all parts found, and what became of those that failed."""
    print_heading("case", "ours", "other", "unit", "ratio")
    for case in (case for outcome in outcomes for case in outcome.cases):
        other, ratio = (
            "–" if case[key] is None else f"{case[key]:.4g}" for key in ("other", "ratio")
        )
        print_row(case["case"], f"{case['ours']:.4g}", other, case["unit"], ratio)
    for outcome in outcomes:
        fault = outcome.fault or (not outcome.has_parity and "a figure is above its bound")
        if fault:
            print(f"{outcome.part.name} FAILED: {fault}")


def run_part(part: Part, *, seconds: float, quick: bool, json: Path | None) -> Outcome:
    """Runs a part in a process of its own; see `run`."""
    received, sent = SPAWN.Pipe(duplex=False)
    process = SPAWN.Process(target=_work, args=(part, quick, sent))
    started = time.monotonic()
    process.start()
    sent.close()
    cases, fault = [], f"it took more than its {seconds:.0f} s"
    try:
        while received.poll(max(started + seconds - time.monotonic(), 0.0)):
            case = received.recv()
            if case is None:
                fault = ""
                process.join(GOODBYE)
                break
            cases.append(case)
            append(json, case)
    except EOFError:
        process.join()
        fault = f"it ended with exit status {process.exitcode}, see above"
    finally:
        _end(process)
    taken = time.monotonic() - started
    return Outcome(part=part, cases=tuple(cases), seconds=taken, fault=fault)


def _work(part: Part, quick: bool, cases: Connection) -> None:
    """What the process of a part does: sends its cases, and None behind the last."""
    os.setsid()  # with those that it starts, it can be ended at once
    from device_sizes import sizes_here

    module, _, name = part.run.rpartition(".")
    run = getattr(importlib.import_module(module), name)
    for case in run(sizes_here(quick=quick), **part.options):
        cases.send(case)
    cases.send(None)


def _end(process: multiprocessing.process.BaseProcess) -> None:
    """Ends a process and those that it has started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.join()


if __name__ == "__main__":
    raise SystemExit(main())
