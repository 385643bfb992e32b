import dataclasses
import json
import sys
import types

import pytest

from dsirm_jax.generator.architectures.architecture import Architecture, check_architecture
from dsirm_jax.generator.architectures.description import architecture_from, describe_architecture
from dsirm_jax.generator.architectures.t5 import T5Config
from dsirm_jax.io.errors import InputError

CONFIG = T5Config(
    emb_dim=64,
    num_heads=4,
    head_dim=16,
    mlp_dim=128,
    num_encoder_layers=2,
    num_decoder_layers=3,
    text_vocab_size=2923,
    sid_sizes=(158, 128),
)
# What files and manifests written when T5 was the only architecture have.
PLAIN = (
    '{"emb_dim": 64, "num_heads": 4, "head_dim": 16, "mlp_dim": 128, "num_encoder_layers": 2, '
    '"num_decoder_layers": 3, "mlp_activations": ["gelu", "linear"], '
    '"logits_via_embedding": false, "dropout_rate": 0.1, "dtype": "float32", "remat": false, '
    '"scan_layers": false, "text_vocab_size": 2923, "sid_sizes": [158, 128]}'
)


def test_a_t5_is_described_without_its_class_as_ever():
    assert json.dumps(describe_architecture(CONFIG)) == PLAIN
    assert architecture_from(json.loads(PLAIN)) == CONFIG
    assert isinstance(CONFIG, Architecture)


def test_other_classes_are_named_and_only_architectures_are_made(tmp_path):
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Own(T5Config):
        depth: int = 2

    Own.__module__ = "own_networks"
    Own.__qualname__ = "Own"
    sys.modules["own_networks"] = types.ModuleType("own_networks")
    sys.modules["own_networks"].Own = Own
    own = Own(**dataclasses.asdict(CONFIG), depth=5)
    description = json.loads(json.dumps(describe_architecture(own)))
    assert description["class"] == "own_networks.Own"
    assert architecture_from(description) == own
    del sys.modules["own_networks"]
    with pytest.raises(InputError, match="nothing has imported own_networks"):
        architecture_from(description)
    for name in ("Transformer", "subprocess.Popen", "dsirm_jax.generator.losses.WeightedSum"):
        import dsirm_jax.generator.losses  # noqa: F401

        with pytest.raises(InputError, match="is no (architecture|frozen dataclass)"):
            architecture_from({"class": name, "args": ["touch", str(tmp_path / "made")]})
    assert not list(tmp_path.iterdir())


def test_a_field_of_a_newer_version_is_named():
    with pytest.raises(InputError, match="T5Config has no depth in this version"):
        architecture_from(json.loads(PLAIN) | {"depth": 3})


def test_what_is_no_architecture_is_refused():
    with pytest.raises(InputError, match=r"generate.run.config is 3; bind .*@t5.T5Config\(\)"):
        check_architecture(3)


FAULTS = {
    "emb_dim": (0, -1, 2.0, True, float("nan"), "64"),
    "num_heads": (0,),
    "head_dim": (0,),
    "mlp_dim": (-4,),
    "num_encoder_layers": (0,),
    "num_decoder_layers": (0,),
    "mlp_activations": ((), ("tanh",), "relu", ["relu"], ("gelu", None)),
    "dropout_rate": (1.5, 1.0, -0.1, float("nan"), "0.1"),
    "dtype": ("float8", "float16", None),
    "remat": ("no", 1, "unrolled"),
    "scan_layers": (None, "products"),
    "logits_via_embedding": (0,),
    "text_vocab_size": (-1, 2.5),
    "sid_sizes": ((0, 4), [4, 4], (4, -1), (2.5,)),
}


@pytest.mark.parametrize("name", FAULTS)
def test_settings_of_a_t5_that_cannot_be_are_named(name):
    for value in FAULTS[name]:
        with pytest.raises(InputError, match=f"gin binding T5Config.{name} is .*; "):
            dataclasses.replace(CONFIG, **{name: value})


def test_the_message_on_float16_says_why():
    with pytest.raises(InputError, match=r"'float32', 'bfloat16' \(T5's activations exceed"):
        dataclasses.replace(CONFIG, dtype="float16")
