import re
from pathlib import Path

import numpy as np
import pytest

from dsirm_jax import generator

TEXT = Path("docs/generator.md").read_text("utf-8")


def test_the_example_trains_predicts_and_scores(tmp_path, capsys):
    (example,) = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)
    names = {}
    exec(example.replace("out/", f"{tmp_path}/"), names)
    assert capsys.readouterr().out.startswith("[[")
    beams, sids = names["beams"], names["sids"]
    np.testing.assert_array_equal(beams.sids[:, 0], sids)
    scores = names["log_probs"]
    np.testing.assert_allclose(scores[0, -1], beams.log_probs[0, 0], atol=1e-5)
    assert scores.shape == (2, 3) and scores[1, -1] < scores[0, -1]


def test_what_the_package_names_is_there_and_nothing_else():
    for name in ("fit_generator", "predict_sids", "score_pairs", "save", "load"):
        assert name in dir(generator) and callable(getattr(generator, name))
    with pytest.raises(AttributeError, match="has no attribute 'fit'"):
        _ = generator.fit
