from dsirm_jax.ahead import printing
from dsirm_jax.ahead.chips import GIB
from dsirm_jax.ahead.compile import Outcome, Target
from dsirm_jax.ahead.programs import Collective, Program
from dsirm_jax.training.memory import Memory


def program(total):
    memory = Memory(arguments=total, outputs=0, temporaries=0, code=0)
    exchange = Collective(kind="all-reduce", group=4, calls=3, sent=4_000_000_000)
    return Program(
        memory=memory, operations={"bfloat16": 197e9}, traffic=819_000, collectives=(exchange,)
    )


def test_the_table_and_what_is_wrong():
    target = Target(topology="v5e:4x4")
    outcomes = [
        Outcome(step="encode", program=program(GIB), used=GIB),
        Outcome(step="quantize", program=program(17 * GIB), used=17 * GIB),
        Outcome(step="generate", used=20 * GIB, reason="does not fit"),
        Outcome(step="search", reason="nothing is trained"),
        Outcome(step="relevance", reason="the compiler aborted"),
    ]
    assert "v5e:4x4: 16 chips; each 17.2 GB, 197 Tflop/s" in printing.heading(target)
    first, exchange = printing.rows(outcomes[0], target=target).splitlines()
    assert first.split()[-1] == "interconnect" and " 20.000 " in first
    assert exchange.strip() == "3 all-reduce over 4: 4.00 GB sent"
    assert printing.rows(outcomes[2], target=target).split(maxsplit=1) == [
        "generate",
        "does not fit",
    ]
    problems = printing.problems(outcomes, target=target)
    assert [line.split()[0] for line in problems] == ["quantize", "generate", "relevance:"]
    assert "quantize/settings.Training.batch_size" in problems[0]
    assert "generate needs 21.47 GB of a chip's 17.18 GB" in problems[1]
    assert "generate.run.model_parallel" in problems[1]
