"""The stages of a job, one file each; each reads what the ones before wrote below one MODEL_DIR."""

from dsirm_jax.stages import (
    encode,
    features,
    generate,
    match,
    prepare,
    quantize,
    relevance,
    report,
)

STAGES = (
    prepare.STAGE,
    encode.STAGE,
    quantize.STAGE,
    generate.STAGE,
    features.STAGE,
    match.STAGE,
    relevance.STAGE,
    report.STAGE,
)
"""In the order in which they run."""
