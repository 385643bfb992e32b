"""Qwen 2 and 2.5: arXiv 2412.15115."""

from dsirm_jax.generator.architectures.families.decoder_family import DecoderFamily

FAMILY = DecoderFamily(
    title="Qwen 2",
    model_types=("qwen2",),
    settings={"qkv_bias": True},
    gguf_name="qwen2",
)
