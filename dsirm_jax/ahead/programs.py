"""What a compiled step asks of a chip: memory, arithmetic, traffic, and the least time it takes.

XLA's own `cost_analysis` counts the body of a loop once, however often it runs, and so misses most
of a model whose layers are scanned. Arithmetic is therefore counted in the traced program, traffic
in the compiled one, each loop as often as it runs.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import math
import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax

from dsirm_jax.ahead.chips import Chip
from dsirm_jax.devices.precision import FASTEST
from dsirm_jax.training.memory import Memory, memory_of

COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
BFLOAT16 = "bfloat16"
DTYPE_BYTES = {"pred": 1, "bf16": 2, "c64": 8, "c128": 16}
# What moves no bytes: names for what is there, and ends of copies whose start was counted.
FREE = {
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all"),
    *("partition-id", "replica-id", "copy-done", "slice-done", "opt-barrier", "domain"),
    "async-update",
}
# What stands for the instructions of a computation that it calls.
WRAPPERS = ("fusion", "call", "async-start")
SLICES = ("dynamic-slice", "slice", "gather")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Collective:
    """One kind of exchange between devices in a step.

    Attributes:
      kind: one of `COLLECTIVES`.
      group: devices that take part in each.
      calls: how often it happens.
      sent: bytes that a device sends in all.
    """

    kind: str
    group: int
    calls: int
    sent: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Program:
    """What a step asks of one device.

    Attributes:
      memory: see `Memory`.
      operations: of its matrix products in floating point, see `operations`.
      traffic: bytes read from and written to the device's main memory.
      collectives: what it exchanges.
    """

    memory: Memory
    operations: Mapping[str, float]
    traffic: float
    collectives: tuple[Collective, ...]

    @property
    def flops(self) -> float:
        """Returns the operations of all products, however precise."""
        return sum(self.operations.values())

    @property
    def sent(self) -> int:
        """Returns the bytes sent to other devices."""
        return sum(each.sent for each in self.collectives)

    def seconds(self, chip: Chip) -> dict[str, float]:
        """Returns the least time that each of a chip's peaks allows; the largest one binds."""
        return {
            "compute": sum(
                chip.passes.get(precision, 1) * number
                for precision, number in self.operations.items()
            )
            / chip.flops,
            "memory": self.traffic / chip.bandwidth,
            "interconnect": self.sent / chip.interconnect,
        }


def describe(step: Any, *arguments: Any, devices: int, **static: Any) -> Program:
    """Compiles a step and returns what it asks of one of the devices.

    Args:
      step: what `jax.jit` or `jax.pmap` made.
      *arguments: of the step, or their shapes with shardings.
      devices: number of devices that it runs on.
      **static: further arguments that are no arrays.
    """
    traced = jax.make_jaxpr(functools.partial(step, **static))(*arguments)
    compiled, text = _compile(step.lower(*arguments, **static))
    traffic, collectives = read_hlo(text, devices=devices)
    return Program(
        memory=memory_of(compiled),
        operations={
            precision: number / devices for precision, number in operations(traced.jaxpr).items()
        },
        traffic=traffic,
        collectives=collectives,
    )


def _compile(lowered: Any) -> tuple[Any, str]:
    """Returns a compiled program and its optimized HLO.

    libtpu writes the text itself: jaxlib, which is older, cannot read all of its instructions.
    """
    with tempfile.TemporaryDirectory() as folder:
        options = {"xla_dump_to": folder, "xla_dump_hlo_as_text": True}
        compiled = lowered.compile(compiler_options=options)
        written = list(Path(folder).glob("*.after_codegen.txt"))
        return compiled, written[0].read_text("utf-8") if written else compiled.as_text()


def operations(jaxpr: Any) -> collections.Counter[str]:
    """Returns the operations of a traced program's matrix products, over all devices.

    A multiplication and an addition are two. Loops count as often as they run, as far as that is
    written in the program; of branches the one with most counts.

    Args:
      jaxpr: of the program.

    Returns:
      The number of them by the precision of float32 products, one of `precision.PRECISIONS`; by
      `BFLOAT16` of products whose factors have no more.
    """
    total = collections.Counter[str]()
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "dot_general":
            (contracted, _), _ = eqn.params["dimension_numbers"]
            left = eqn.invars[0].aval.shape
            inner = math.prod(left[axis] for axis in contracted)
            total[_precision(eqn)] += 2 * math.prod(eqn.outvars[0].aval.shape) * inner
            continue
        bodies = [operations(body) for body in _bodies(eqn.params)]
        if eqn.primitive.name == "cond":
            bodies = sorted(bodies, key=lambda body: body.total())[-1:]
        times = 1
        if eqn.primitive.name == "scan":
            times = eqn.params["length"]
        elif eqn.primitive.name == "shard_map":  # shapes inside are those of one device
            times = eqn.params["mesh"].size
        for body in bodies:
            total += collections.Counter({key: times * number for key, number in body.items()})
    return total


def _precision(product: Any) -> str:
    """Returns what `operations` counts a product under."""
    if not any(factor.aval.dtype == "float32" for factor in product.invars):
        return BFLOAT16
    asked = product.params["precision"]
    return asked[0].name.lower() if asked else FASTEST


def _bodies(params: dict[str, Any]) -> Iterator[Any]:
    for value in params.values():
        for part in value if isinstance(value, (tuple, list)) else [value]:
            part = getattr(part, "jaxpr", part)
            if hasattr(part, "eqns"):
                yield part


@dataclasses.dataclass(frozen=True)
class _Instruction:
    name: str
    shape: str
    opcode: str
    operands: tuple[str, ...]
    attributes: str
    is_root: bool


_Computation = dict[str, _Instruction]


def read_hlo(text: str, *, devices: int) -> tuple[float, tuple[Collective, ...]]:
    """Returns the bytes a compiled program moves in main memory, and what it sends.

    Fused instructions move what goes into and comes out of the fusion, slices what is sliced, and
    updates in place what is new. What a TPU keeps on its core (memory space 1 and above) is free.
    An exchange of `n` bytes in a group of `g` sends `n (g - 1) / g` from each device: gathered or
    scattered `n` once, reduced `n` twice.

    Args:
      text: optimized HLO of one device.
      devices: group of the exchanges that name none.

    Raises:
      ValueError: nothing in the text says where the program begins.
    """
    computations, entry = _parse(text)
    sizes = _Sizes(computations)
    traffic, calls = 0.0, collections.Counter[tuple[str, int]]()
    sent: dict[tuple[str, int], float] = collections.defaultdict(float)
    seen = set()

    def walk(name: str, times: int, *, fused: bool) -> None:
        nonlocal traffic
        computation = computations[name]
        for each in computation.values():
            opcode = each.opcode.removesuffix("-start")
            if opcode in COLLECTIVES:
                group = _group(each.attributes, devices)
                kind = "reduce-scatter" if name.startswith("all-reduce-scatter") else opcode
                amount = sum(
                    sizes.bytes_of(computation[operand].shape, all_spaces=True)
                    for operand in each.operands
                    if operand in computation
                )
                if kind == "all-gather":
                    amount *= group
                channel = re.search(r"channel_id=(\d+)", each.attributes)
                key = (kind, channel[1], amount) if channel else (name, each.name)
                if key not in seen:  # one that overlaps with work is there in several pieces
                    seen.add(key)
                    rounds = 2 if kind == "all-reduce" else 1
                    share = 1 if kind == "collective-permute" else (group - 1) / group
                    calls[kind, group] += times
                    sent[kind, group] += times * rounds * amount * share
            if not fused:
                traffic += times * sizes.moved(computation, each)
            inner = _called(each.attributes)
            if each.opcode == "while":
                walk(inner["body"], times * _trips(computations[inner["condition"]]), fused=fused)
            elif each.opcode == "conditional":
                for branch in inner.values():
                    walk(branch, times, fused=fused)
            elif "calls" in inner:
                walk(inner["calls"], times, fused=each.opcode != "call")
            elif each.opcode == "call":
                walk(inner["to_apply"], times, fused=fused)

    walk(entry, 1, fused=False)
    collectives = (
        Collective(kind=kind, group=group, calls=calls[kind, group], sent=round(amount))
        for (kind, group), amount in sorted(sent.items())
        if group > 1
    )
    return traffic, tuple(collectives)


class _Sizes:
    """Bytes that instructions move, given what the fusions among them do."""

    def __init__(self, computations: dict[str, _Computation]):
        self.computations = computations

    def bytes_of(self, shape: str, *, all_spaces: bool = False) -> float:
        """Returns the bytes of a shape, or of the parts of a tuple, that lie in main memory."""
        total = 0.0
        for dtype, dims, layout in re.findall(r"(\w+)\[([\d,]*)\](\{[^}]*\})?", shape):
            if all_spaces or "S(" not in layout:
                total += _width(dtype) * math.prod(map(int, filter(None, dims.split(","))))
        return total

    def moved(self, computation: _Computation, each: _Instruction) -> float:
        """Returns what one instruction reads and writes."""
        if each.opcode in FREE | {"while", "conditional", "call"}:
            return 0
        if "AllocateBuffer" in each.attributes:
            return 0
        if each.opcode.endswith("-done"):
            return 0
        if each.opcode == "copy-start":  # (target, source, flag)
            return self.bytes_of(each.shape)
        read = sum(
            self._read(computation, each, place, computation[operand].shape)
            for place, operand in enumerate(each.operands)
            if operand in computation and self.bytes_of(computation[operand].shape)
        )
        return read + (self._written(computation, each) if self.bytes_of(each.shape) else 0)

    def _read(self, computation: _Computation, each: _Instruction, place: int, shape: str) -> float:
        """Returns what an instruction reads of an operand of this shape."""
        whole = self.bytes_of(shape, all_spaces=True)
        if each.opcode in SLICES and place == 0:
            return min(whole, self.bytes_of(each.shape, all_spaces=True))
        if each.opcode == "dynamic-update-slice" and place == 0:
            return 0
        if each.opcode in ("bitcast", "tuple", "get-tuple-element"):
            return 0 if each.is_root else self._read_by_users(computation, each.name, shape)
        if each.opcode in WRAPPERS:
            body = self._body(each)
            parameter = next(
                p for p in body.values() if p.opcode == "parameter" and p.operands == (str(place),)
            )
            return self._read_by_users(body, parameter.name, parameter.shape)
        return whole

    def _read_by_users(self, computation: _Computation, name: str, shape: str) -> float:
        read = sum(
            self._read(computation, user, place, shape)
            for user in computation.values()
            for place, operand in enumerate(user.operands)
            if operand == name and user.opcode != "parameter"
        )
        return min(read, self.bytes_of(shape, all_spaces=True))

    def _body(self, each: _Instruction) -> _Computation:
        called = _called(each.attributes)
        return self.computations[called.get("calls") or called["to_apply"]]

    def _written(self, computation: _Computation, each: _Instruction) -> float:
        if each.opcode == "dynamic-update-slice":
            return self.bytes_of(computation[each.operands[1]].shape, all_spaces=True)
        if each.opcode == "parameter":
            return 0
        if each.opcode == "tuple":
            return sum(self._written(computation, computation[o]) for o in each.operands)
        if each.opcode == "bitcast" and each.operands[0] in computation:
            return self._written(computation, computation[each.operands[0]])
        if each.opcode in WRAPPERS:
            body = self._body(each)
            root = next(part for part in body.values() if part.is_root)
            return min(self._written(body, root), self.bytes_of(each.shape, all_spaces=True))
        return self.bytes_of(each.shape)


def _parse(text: str) -> tuple[dict[str, _Computation], str]:
    """Returns the computations by name, and the name of the one that is run."""
    computations: dict[str, _Computation] = {}
    current, entry = None, None
    for line in text.splitlines():
        header = re.match(r"(ENTRY )?%?([\w.\-]+) \(.*\{$", line)
        if header:
            current = computations.setdefault(header[2], {})
            entry = header[2] if header[1] else entry
        elif current is not None and (instruction := _instruction(line)):
            current[instruction.name] = instruction
    if entry is None:
        raise ValueError("the HLO names no ENTRY computation")
    return computations, entry


def _instruction(line: str) -> _Instruction | None:
    head = re.match(r"\s+(ROOT )?%?([\w.\-]+) = ", line)
    if not head:
        return None
    rest = line[head.end() :]
    stop = _closing(rest, 0) if rest.startswith("(") else rest.index(" ")
    shape, rest = rest[:stop], rest[stop:].lstrip()
    opcode, _, _ = rest.partition("(")
    stop = _closing(rest, len(opcode))
    inside = rest[len(opcode) + 1 : stop - 1]
    operands = re.findall(r"%([\w.\-]+)", inside) or [part.strip() for part in inside.split(",")]
    return _Instruction(head[2], shape, opcode.strip(), tuple(operands), rest[stop:], bool(head[1]))


def _closing(text: str, start: int) -> int:
    """Returns the place behind the parenthesis that closes the one at `start`."""
    depth = 0
    for place in range(start, len(text)):
        depth += {"(": 1, ")": -1}.get(text[place], 0)
        if depth == 0:
            return place + 1
    return len(text)


def _called(attributes: str) -> dict[str, str]:
    names = "calls|body|condition|to_apply|true_computation|false_computation"
    called = dict(re.findall(rf"\b({names})=%?([\w.\-]+)", attributes))
    branches = re.search(r"branch_computations=\{([^}]*)\}", attributes)
    if branches:
        called |= {name.strip(" %"): name.strip(" %") for name in branches[1].split(",")}
    return called


def _trips(condition: _Computation) -> int:
    """Returns how often a loop runs that counts from 0 up to a constant; 1 for any other."""
    bounds = [
        int(part.operands[0])
        for part in condition.values()
        if part.opcode == "constant" and part.operands[0].isdecimal()
    ]
    return max(bounds, default=1) or 1


def _group(attributes: str, devices: int) -> int:
    if axes := re.search(r"replica_groups=mesh\[(.*?)\] \{(.*?)\}", attributes):
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", axes[1]))
        return math.prod(int(sizes[name]) for name in re.findall(r"'(\w+)'", axes[2]))
    if listed := re.search(r"replica_groups=\[\d+,(\d+)\]", attributes):
        return int(listed[1])
    if first := re.search(r"replica_groups=\{\{([\d,]+)\}", attributes):
        return first[1].count(",") + 1
    return devices


def _width(dtype: str) -> float:
    if dtype in DTYPE_BYTES:
        return DTYPE_BYTES[dtype]
    bits = re.search(r"\d+", dtype)
    return int(bits[0]) / 8 if bits else 0
