"""Qwen 3: arXiv 2505.09388."""

from dsirm_jax.generator.architectures.families.decoder_family import DecoderFamily

FAMILY = DecoderFamily(
    title="Qwen 3",
    model_types=("qwen3",),
    settings={"qk_norm": True},
    gguf_name="qwen3",
)
