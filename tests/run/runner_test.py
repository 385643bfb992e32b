import json

import pytest

from dsirm_jax.io.errors import InputError
from dsirm_jax.run import runner
from dsirm_jax.run.layout import Layout


class Counter:
    """A stage function that counts its runs and writes what it was given."""

    def __init__(self, name):
        self.name, self.runs, self.fails = name, 0, False

    def __call__(self, layout, *, value):
        self.runs += 1
        (layout.stage(self.name) / "output.txt").write_text(str(value))
        if self.fails:
            raise KeyboardInterrupt


@pytest.fixture
def go(tmp_path):
    layout = Layout(model_dir=tmp_path)
    functions = {"prepare": Counter("prepare"), "encode": Counter("encode")}

    def run(name, *, value=1, force=False):
        needed = {"prepare": layout.stage("prepare")} if name == "encode" else {}
        runner.run_stage(
            runner.Stage(name=name, function=functions[name], needs=tuple(needed)),
            layout,
            bindings={"value": value},
            described={"value": value},
            needed=needed,
            force=force,
        )
        return functions[name].runs

    run.functions, run.layout = functions, layout
    return run


def test_a_finished_stage_is_skipped_until_a_binding_or_an_input_changes(go):
    assert go("prepare") == 1
    assert go("encode") == 1
    assert go("encode") == 1
    assert go("encode", value=2) == 2
    assert go("prepare", value=2) == 2
    assert go("encode", value=2) == 3
    assert go("encode", value=2) == 3


def test_what_is_replaced_is_kept(go):
    go("prepare", value="old")
    go("prepare", value="new")
    go("prepare", value="new", force=True)
    kept = go.layout.model_dir / "replaced"
    assert (kept / "prepare-1" / "output.txt").read_text() == "old"
    assert (kept / "prepare-2" / "output.txt").read_text() == "new"


def test_an_interrupted_stage_keeps_its_folder_and_goes_on(go):
    go.functions["prepare"].fails = True
    with pytest.raises(KeyboardInterrupt):
        go("prepare")
    assert not json.loads((go.layout.stage("prepare") / "stage.json").read_text())["finished"]
    with pytest.raises(InputError, match="is not finished; run `dsirm prepare`"):
        go("encode")
    go.functions["prepare"].fails = False
    assert go("prepare") == 2
    assert not (go.layout.model_dir / "replaced").exists()
    assert go("encode") == 1


def test_a_folder_of_somebody_else_is_never_touched(go):
    folder = go.layout.stage("prepare")
    folder.mkdir()
    (folder / "mine.txt").write_text("keep")
    with pytest.raises(InputError, match="is not a stage's output"):
        go("prepare")
    assert (folder / "mine.txt").read_text() == "keep"


def test_rungs_have_their_own_sids_and_share_the_rest(tmp_path):
    full = Layout(model_dir=tmp_path)
    rung = full.for_rung("unsupervised")
    assert rung.sids == tmp_path / "ablation/unsupervised/quantize/sids.parquet"
    assert rung.items == full.items
    assert full.sids == tmp_path / "quantize/sids.parquet"
