"""Gemma 3 without its reader of images: arXiv 2503.19786."""

from dsirm_jax.generator.architectures.families.decoder_family import DecoderFamily, Entries

PATTERN = 6
"""Of so many layers the last one is global."""
LARGEST = 62
"""Layers of Gemma 3 27B, alone in dividing attention by another width than its heads'."""


def gguf_entries(described: Entries) -> Entries:
    """Returns what GGUF takes for granted."""
    layers, heads = described["num_hidden_layers"], described["num_attention_heads"]
    shared = described["hidden_size"] // heads
    return {
        "hidden_activation": "gelu_pytorch_tanh",
        "sliding_window_pattern": PATTERN,
        "rope_local_base_freq": described.get("rope_local_base_freq", 10_000.0),
        "query_pre_attn_scalar": shared if layers == LARGEST else described["head_dim"],
    }


FAMILY = DecoderFamily(
    title="Gemma 3",
    model_types=("gemma3_text",),
    marked=(True, False),
    settings={"qk_norm": True, "post_norm": True, "scales_embedding": True},
    activation="hidden_activation",
    scale_offset=1.0,
    is_tied=True,
    gguf_name="gemma3",
    gguf_entries=gguf_entries,
)
