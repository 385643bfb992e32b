"""A tiny job through the real command line."""

import os
import subprocess
import sys

from tests import compilation

SMALL = [
    "--gin.quantizer_config.QuantizerConfig.codebook_sizes=(16, 8, 8)",
    "--gin.quantizer_config.QuantizerConfig.pin_depth=1",
    "--gin.encode/settings.Training.epochs=2",
    "--gin.quantize/settings.Training.epochs=4",
    "--gin.generate/settings.Training.epochs=1",
    "--gin.relevance/settings.Training.epochs=2",
    "--gin.towers.TwoTowers.dim=32",
    "--gin.t5.T5Config.emb_dim=16",
    "--gin.t5.T5Config.num_encoder_layers=1",
    "--gin.t5.T5Config.num_decoder_layers=1",
]
TINY = [
    "--gin_file=gin/runs/demo.gin",
    "--gin.simulated_shop.SimulatedShop.items=400",
    "--gin.simulated_shop.SimulatedShop.queries=200",
    "--gin.prepare.run.vocabulary_size=900",
    *SMALL,
]
# Two rungs, none of which is trained of its own.
NO_ABLATION = [
    "--gin.job.Job.rungs=()",
    "--gin.relevance.run.rungs={'no_sid': ('dense',), 'full': ('dense', 'prefix')}",
]


def command(stage, model_dir, *more, base=TINY):
    flags = [*base, f"--gin.MODEL_DIR='{model_dir}'", *more]
    return [sys.executable, "-m", "dsirm_jax", stage, *flags]


def environment():
    # One device, as on a user's machine; the tests' own process has eight.
    return os.environ | {"XLA_FLAGS": compilation.QUICK, "PYTHONPATH": os.getcwd()}


def dsirm(stage, model_dir, *more, base=TINY):
    done = subprocess.run(
        command(stage, model_dir, *more, base=base),
        capture_output=True,
        text=True,
        env=environment(),
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done
