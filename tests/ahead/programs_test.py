import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from dsirm_jax.ahead import programs
from dsirm_jax.ahead.chips import CHIPS
from dsirm_jax.ahead.programs import Collective, Program
from dsirm_jax.devices.precision import exact
from dsirm_jax.training.memory import Memory
from dsirm_jax.training.meshes import DATA_AXIS, data_mesh

# A loop of 5 turns: each slices row [1, 64] out of [5, 64], gathers, and updates a row in place.
HLO = """HloModule step

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}

%sliced (stack: f32[5,64], at: s32[]) -> f32[1,64] {
  %stack = f32[5,64]{1,0:T(8,128)} parameter(0)
  %at = s32[]{:T(128)S(6)} parameter(1)
  ROOT %row = f32[1,64]{1,0} dynamic-slice(%stack, %at), dynamic_slice_sizes={1,64}
}

%updated (into: f32[5,64], row: f32[1,64], at: s32[]) -> f32[5,64] {
  %into = f32[5,64]{1,0} parameter(0)
  %row.1 = f32[1,64]{1,0} parameter(1)
  %at.1 = s32[]{:S(6)} parameter(2)
  %twice = f32[1,64]{1,0} add(%row.1, %row.1)
  ROOT %new = f32[5,64]{1,0} dynamic-update-slice(%into, %twice, %at.1)
}

%all-reduce-scatter.1 (x: bf16[64]) -> bf16[16] {
  %x = bf16[64]{0} parameter(0)
  %inner = bf16[64]{0} all-reduce(%x), channel_id=7, replica_groups=[2,4]<=[8], to_apply=%add
  ROOT %part = bf16[16]{0} slice(%inner), slice={[0:16]}
}

%body (carried: (s32[], f32[5,64])) -> (s32[], f32[5,64]) {
  %carried = (s32[]{:S(6)}, f32[5,64]{1,0}) parameter(0)
  %i = s32[]{:S(6)} get-tuple-element(%carried), index=0
  %all = f32[5,64]{1,0} get-tuple-element(%carried), index=1
  %one = f32[1,64]{1,0} fusion(%all, %i), kind=kLoop, calls=%sliced
  %wide = f32[4,64]{1,0:T(8,128)S(1)} all-gather(%one), channel_id=3, replica_groups={{0,1,2,3},{4,5,6,7}}, dimensions={0}
  %next = f32[5,64]{1,0} fusion(%all, %one, %i), kind=kLoop, calls=%updated
  ROOT %out = (s32[]{:S(6)}, f32[5,64]{1,0}) tuple(%i, %next)
}

%condition (carried: (s32[], f32[5,64])) -> pred[] {
  %carried.1 = (s32[]{:S(6)}, f32[5,64]{1,0}) parameter(0)
  %i.1 = s32[]{:S(6)} get-tuple-element(%carried.1), index=0
  %last = s32[]{:S(6)} constant(5)
  ROOT %less = pred[] compare(%i.1, %last), direction=LT
}

ENTRY %main (p: f32[5,64], q: bf16[64]) -> f32[5,64] {
  %p = f32[5,64]{1,0} parameter(0)
  %q = bf16[64]{0} parameter(1)
  %zero = s32[]{:S(6)} constant(0)
  %start = (s32[]{:S(6)}, f32[5,64]{1,0}) tuple(%zero, %p)
  %loop = (s32[]{:S(6)}, f32[5,64]{1,0}) while(%start), condition=%condition, body=%body
  %scattered = bf16[16]{0} fusion(%q), kind=kCustom, calls=%all-reduce-scatter.1
  %total = f32[5,64]{1,0} get-tuple-element(%loop), index=1
  ROOT %all.1 = f32[5,64]{1,0} all-reduce(%total), channel_id=9, replica_groups=mesh['data'=2,'model'=4] {'data'}, to_apply=%add
}
"""  # noqa: E501


def test_traffic_and_exchanges_by_hand():
    row, stack = 64 * 4, 5 * 64 * 4
    traffic, found = programs.read_hlo(HLO, devices=8)
    turn = 2 * row + row + 2 * row  # the slice; what is gathered; the update: read, written
    scattered = 64 * 2 + 16 * 2
    assert traffic == 5 * turn + scattered + 2 * stack
    assert found == (
        Collective(kind="all-gather", group=4, calls=5, sent=5 * 3 * row),
        Collective(kind="all-reduce", group=2, calls=1, sent=stack),
        Collective(kind="reduce-scatter", group=4, calls=1, sent=64 * 2 * 3 // 4),
    )


# A row of [5, 64] is looked up while the main core does something else.
ASIDE = """HloModule step

%looked_up (table: f32[5,64], at: s32[1]) -> f32[1,64] {
  %table = f32[5,64]{1,0} parameter(0)
  %at = s32[1]{0} parameter(1)
  ROOT %row = f32[1,64]{1,0} gather(%table, %at), slice_sizes={1,64}
}

%called (table: f32[5,64], at: s32[1]) -> f32[1,64] {
  %table.1 = f32[5,64]{1,0} parameter(0)
  %at.1 = s32[1]{0} parameter(1)
  ROOT %found = f32[1,64]{1,0} fusion(%table.1, %at.1), kind=kCustom, calls=%looked_up
}

%aside (table: f32[5,64], at: s32[1]) -> f32[1,64] {
  %table.2 = f32[5,64]{1,0} parameter(0)
  %at.2 = s32[1]{0} parameter(1)
  ROOT %call = f32[1,64]{1,0} call(%table.2, %at.2), to_apply=%called
}

ENTRY %main (table: f32[5,64], at: s32[1]) -> f32[1,64] {
  %table.3 = f32[5,64]{1,0} parameter(0)
  %at.3 = s32[1]{0} parameter(1)
  %start = ((f32[5,64]{1,0}, s32[1]{0}), f32[1,64]{1,0}, u32[]{:S(8)}) async-start(%table.3, %at.3), calls=%aside
  %update = ((f32[5,64]{1,0}, s32[1]{0}), f32[1,64]{1,0}, u32[]{:S(8)}) async-update(%start)
  ROOT %done = f32[1,64]{1,0} async-done(%update)
}
"""  # noqa: E501


def test_what_runs_aside_moves_what_its_computation_moves():
    assert programs.read_hlo(ASIDE, devices=1) == (64 * 4 + 4 + 64 * 4, ())


def scanned(weights, x):
    def body(x, weight):
        return jnp.tanh(x @ weight), None

    return jnp.sum(jax.lax.scan(body, x, weights)[0])


def test_operations_of_loops_and_of_every_device_count():
    weights, x = jnp.ones((6, 8, 8)), jnp.ones((16, 8))
    forward = 6 * 2 * 16 * 8 * 8
    assert programs.operations(jax.make_jaxpr(scanned)(weights, x).jaxpr) == {"default": forward}
    gradient = jax.make_jaxpr(jax.jit(jax.grad(scanned)))(weights, x)
    assert programs.operations(gradient.jaxpr).total() == pytest.approx(3 * forward, rel=0.1)
    mapped = jax.pmap(lambda x: x @ x.T, axis_name=DATA_AXIS)
    found = programs.operations(jax.make_jaxpr(mapped)(jnp.ones((8, 4, 3))).jaxpr)
    assert found == {"default": 8 * 2 * 4 * 4 * 3}


def test_operations_are_told_apart_by_precision():
    def several(x, narrow):
        product = exact(lambda x: x @ x)(x) + jax.lax.dot(x, x, precision="high")
        chosen = jax.lax.cond(x[0, 0] > 0, lambda x: x @ x, exact(lambda x: x + x[:1] @ x), x)
        return product + chosen + narrow @ narrow

    narrow = jax.ShapeDtypeStruct((4, 4), jnp.bfloat16)
    once = 2 * 4 * 4 * 4
    found = programs.operations(jax.make_jaxpr(several)(jnp.ones((4, 4)), narrow).jaxpr)
    assert found == {"highest": once, "high": once, "default": once, "bfloat16": once}


def test_a_compiled_step_is_read():
    mesh = data_mesh()
    rows = jax.ShapeDtypeStruct(
        (64, 32), jnp.float32, sharding=NamedSharding(mesh, PartitionSpec(DATA_AXIS))
    )
    weights = jax.ShapeDtypeStruct(
        (32, 32), jnp.float32, sharding=NamedSharding(mesh, PartitionSpec())
    )

    @jax.jit(donate_argnums=0)
    def step(weights, rows):
        return weights - jax.grad(lambda w: jnp.sum((rows @ w) ** 2))(weights)

    found = programs.describe(step, weights, rows, devices=8)
    assert found.memory.arguments == 32 * 32 * 4 + 8 * 32 * 4
    assert found.memory.outputs == 0  # they take the place of the weights
    assert found.flops == 2 * 2 * 64 * 32 * 32 / 8
    (reduced,) = found.collectives
    assert (reduced.kind, reduced.group, reduced.calls) == ("all-reduce", 8, 1)
    assert reduced.sent == 2 * 32 * 32 * 4 * 7 // 8
    assert found.traffic >= 2 * 32 * 32 * 4 + 8 * 32 * 4


def test_the_slowest_part_bounds_the_time():
    program = Program(
        memory=Memory(arguments=1, outputs=2, temporaries=3, code=4),
        operations={"highest": 197e12 / 12, "high": 197e12 / 12, "bfloat16": 197e12 / 4},
        traffic=819 * 10**9 // 2,
        collectives=(Collective(kind="all-reduce", group=8, calls=1, sent=50 * 10**9),),
    )
    assert program.memory.total == 10
    assert program.flops == pytest.approx(197e12 * (2 / 12 + 1 / 4))
    seconds = program.seconds(CHIPS["v5e"])
    assert {
        name: math.isclose(seconds[name], s)
        for name, s in (("compute", 1.0), ("memory", 0.5), ("interconnect", 0.25))
    } == dict.fromkeys(("compute", "memory", "interconnect"), True)


def test_nothing_is_sent_by_a_device_that_stands_alone():
    one = jax.jit(lambda x: x @ x)
    assert programs.describe(one, np.ones((4, 4), "f4"), devices=1).collectives == ()


def test_a_text_without_a_beginning_is_refused():
    with pytest.raises(ValueError, match="no ENTRY"):
        programs.read_hlo("HloModule jit_step\n", devices=1)
