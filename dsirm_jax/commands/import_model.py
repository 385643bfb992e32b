"""`dsirm import-model`: a pretrained model to start from."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from dsirm_jax.commands.command import Command, Flag, Values


def run(flags: Values, arguments: Sequence[str]) -> int:
    """Writes a folder of weights, vocabulary, licences and gin."""
    from dsirm_jax.generator.importing.models import import_model

    lines = import_model(
        Path(flags["from"]),
        Path(flags["to"]),
        texts=flags["texts"],
        prompt=flags["prompt"],
        vocabulary=Path(flags["vocabulary"]) if flags["vocabulary"] else None,
    )
    print(*lines, sep="\n")
    print(f"read {flags['to']}/model.gin after a run's own gin file")
    return 0


COMMAND = Command(
    name="import-model",
    summary="a language model of Hugging Face, GGUF or T5X -> weights and vocabulary to start from",
    run=run,
    flags=(
        Flag(
            name="from",
            value="PATH",
            required=True,
            meaning="config.json and safetensors of Hugging Face (T5, Llama, Qwen 2 and 3,\n"
            "Gemma 3), a file of GGUF, or a checkpoint of T5X",
        ),
        Flag(
            name="to",
            value="DIR",
            required=True,
            meaning="the folder to make: weights, vocabulary, licences and model.gin",
        ),
        Flag(
            name="texts",
            value="FILE",
            kind="texts",
            meaning="keeps the pieces of these texts alone; others are spelt in bytes. Tables,\n"
            "best a run's prepare/queries.parquet and items.parquet, or plain text; may be\n"
            "given again",
        ),
        Flag(
            name="prompt",
            value="TEXT",
            default="{query}",
            meaning="what stands around every query, such as 'find: {query}'",
        ),
        Flag(
            name="vocabulary",
            value="FILE",
            meaning="tokenizer.json or a SentencePiece model, where it is not beside the weights",
        ),
    ),
    configured=False,
)
ALIAS = dataclasses.replace(
    COMMAND, name="import-t5", summary="import-model under its earlier name"
)
