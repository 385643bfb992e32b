"""`dsirm import-t5`: pretrained weights to start from."""

from __future__ import annotations

from collections.abc import Sequence

from dsirm_jax.commands.command import Command, Flag, Values


def run(flags: Values, arguments: Sequence[str]) -> int:
    """Writes a folder of weights, vocabulary and gin."""
    from dsirm_jax.generator.architectures.t5_weights import import_t5

    import_t5(flags["from"], flags["to"], vocabulary=flags["vocabulary"])
    print(f"read {flags['to']}/model.gin after a run's own gin file")
    return 0


COMMAND = Command(
    name="import-t5",
    summary="a T5 of Hugging Face or T5X -> weights and vocabulary to start from",
    run=run,
    flags=(
        Flag(
            name="from",
            value="DIR",
            required=True,
            meaning="config.json and safetensors of Hugging Face, or a checkpoint of T5X",
        ),
        Flag(
            name="to",
            value="DIR",
            required=True,
            meaning="the folder to make: weights, vocabulary and model.gin",
        ),
        Flag(
            name="vocabulary",
            value="FILE",
            meaning="the SentencePiece model, where it is not DIR/spiece.model",
        ),
    ),
    configured=False,
)
