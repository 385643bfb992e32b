"""Shapes of models that several benchmarks measure."""

from __future__ import annotations

from dsirm_jax.generator.architectures.decoder_only import DecoderConfig
from dsirm_jax.generator.architectures.t5 import T5Config

T5_TINY = T5Config(
    emb_dim=64, num_heads=4, head_dim=16, mlp_dim=128, num_encoder_layers=2, num_decoder_layers=2
)
"""The generator of runs on two CPU cores."""
T5_SMALL = T5Config(
    emb_dim=512,
    num_heads=6,
    head_dim=64,
    mlp_dim=1024,
    num_encoder_layers=8,
    num_decoder_layers=8,
)
"""A generator of T5-small's size, version 1.1."""
T5_BASE = T5Config(
    emb_dim=768,
    num_heads=12,
    head_dim=64,
    mlp_dim=2048,
    num_encoder_layers=12,
    num_decoder_layers=12,
    dtype="bfloat16",
    remat="products",
    scan_layers=True,
)
"""Likewise of T5-base's."""
SMOLLM2_135M = DecoderConfig(
    emb_dim=576,
    num_heads=9,
    num_kv_heads=3,
    head_dim=64,
    mlp_dim=1536,
    num_layers=30,
    norm_epsilon=1e-5,
    rope_theta=100_000.0,
)
"""Likewise of SmolLM2-135M's, a Llama."""
