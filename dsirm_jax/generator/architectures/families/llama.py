"""Llama 1 to 3 and what is built alike, such as SmolLM2: arXiv 2407.21783, 2502.02737."""

from dsirm_jax.generator.architectures.families.decoder_family import DecoderFamily

FAMILY = DecoderFamily(
    title="Llama",
    model_types=("llama",),
    marked=(True, False),
    gguf_name="llama",
    gguf_turns=True,
)
