import json
import os

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


NEEDS = {"prepare": (), "encode": ("prepare",), "quantize": ("encode",)}


@pytest.fixture
def go(tmp_path):
    layout = Layout(model_dir=tmp_path)
    functions = {name: Counter(name) for name in NEEDS}

    def run(name, *, value=1, version=1, **flags):
        runner.run_stage(
            runner.Stage(name=name, function=functions[name], version=version),
            layout,
            bindings={"value": value},
            described={"value": value},
            needed={earlier: layout.stage(earlier) for earlier in NEEDS[name]},
            config=f"value = {value}\n",
            **flags,
        )
        return functions[name].runs

    run.functions, run.layout = functions, layout
    return run


def output(go, name="prepare"):
    return go.layout.stage(name) / "output.txt"


def test_a_finished_stage_is_skipped_until_a_binding_or_an_input_changes(go):
    assert go("prepare") == 1
    assert go("encode") == 1
    assert go("encode") == 1
    assert go("encode", value=2) == 2
    assert go("prepare", value=2) == 2
    assert go("encode", value=2) == 3
    assert go("encode", value=2) == 3


def test_the_record_has_size_and_checksum_of_every_file(go):
    go("prepare", value="abc")
    folder = go.layout.stage("prepare")
    record = json.loads((folder / "stage.json").read_text())
    # That of "abc" stands in FIPS 180-2.
    abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert record["files"]["output.txt"] == {"bytes": 3, "sha256": abc}
    assert sorted(record["files"]) == ["config.gin", "output.txt"]
    assert (folder / "config.gin").read_text() == "value = abc\n"


def test_what_is_replaced_is_kept(go):
    go("prepare", value="old")
    go("prepare", value="new")
    go("prepare", value="new", force=True)
    kept = go.layout.model_dir / "replaced"
    assert (kept / "prepare-1" / "output.txt").read_text() == "old"
    assert (kept / "prepare-2" / "output.txt").read_text() == "new"


def test_what_is_there_stays_until_its_successor_is_whole(go):
    go("prepare", value="old")
    go.functions["prepare"].fails = True
    with pytest.raises(KeyboardInterrupt):
        go("prepare", value="new")
    assert output(go).read_text() == "old"
    assert go("encode") == 1  # the old one is whole
    assert not (go.layout.model_dir / "replaced").exists()
    go.functions["prepare"].fails = False
    assert go("prepare", value="new") == 3
    assert output(go).read_text() == "new"
    assert (go.layout.model_dir / "replaced/prepare-1/output.txt").read_text() == "old"
    assert not (go.layout.model_dir / "successors/prepare").exists()


def test_a_successor_takes_its_place_though_the_process_died_before(go):
    go("prepare", value="old")
    go("prepare", value="new")
    model_dir = go.layout.model_dir
    # As if it had died between both renames, then before the first.
    (model_dir / "successors").mkdir()
    go.layout.stage("prepare").rename(model_dir / "successors/prepare")
    assert go("prepare", value="new") == 2
    assert output(go).read_text() == "new"
    (model_dir / "successors").mkdir()
    go.layout.stage("prepare").rename(model_dir / "successors/prepare")
    (model_dir / "replaced/prepare-1").rename(go.layout.stage("prepare"))
    assert go("prepare", value="new") == 2
    assert output(go).read_text() == "new"
    assert (model_dir / "replaced/prepare-1/output.txt").read_text() == "old"


def test_a_successor_that_nobody_finishes_is_in_nobodys_way(go):
    go("prepare", value="abc")
    go.functions["prepare"].fails = True
    with pytest.raises(KeyboardInterrupt):
        go("prepare", value="abc", force=True)
    go.functions["prepare"].fails = False
    go.layout.stage("prepare").rename(go.layout.model_dir / "deleted by its owner")
    assert go("prepare", value="abc") == 3
    assert output(go).read_text() == "abc"
    assert go("prepare", value="abc") == 3


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


def flip(path):
    """Changes one bit of a file, and neither its size nor its time of change."""
    state = path.stat()
    contents = bytearray(path.read_bytes())
    contents[len(contents) // 2] ^= 1
    path.write_bytes(contents)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


def test_a_damaged_output_is_made_again_and_what_depends_on_it_stays(go, caplog):
    go("prepare", value="abc")
    go("encode")
    flip(output(go))
    assert go("prepare", value="abc") == 2
    assert output(go).read_text() == "abc"
    assert f"{output(go)} is not what was written" in caplog.text
    assert go("encode") == 1  # the same bytes again


@pytest.mark.parametrize("kind", ["damaged", "missing", "longer", "further file"])
def test_a_damaged_input_is_named_however_far_ahead_it_lies(go, kind):
    for name in NEEDS:
        go(name, value="abc")
    path = output(go)
    if kind == "damaged":
        flip(path)
    elif kind == "missing":
        path.unlink()
    elif kind == "longer":
        path.write_text("abcd")
    else:
        path = path.with_name("output-2.txt")
        path.write_text("abc")
    with pytest.raises(InputError) as error:
        go("quantize", value="other")
    assert str(path) in str(error.value)
    assert "`dsirm prepare` (or `dsirm run`) makes it again" in str(error.value)
    assert go.functions["quantize"].runs == 1


def test_checkpoints_and_logs_may_be_deleted(go):
    folder = go.layout.stage("prepare")
    go("prepare")
    (folder / "logs").mkdir()
    (folder / "logs" / "events").write_text("later")
    assert go("prepare") == 1


@pytest.mark.parametrize("byte", range(0, 700, 23))
def test_a_damaged_record_is_never_believed(go, byte):
    go("prepare")
    path = go.layout.stage("prepare") / "stage.json"
    contents = bytearray(path.read_bytes())
    contents[byte % len(contents)] ^= 4
    path.write_bytes(contents)
    with pytest.raises(InputError, match=r"stage\.json is not what was written"):
        go("prepare")


def test_trust_reads_no_file_of_the_same_size_and_time(go):
    go("prepare", value="abc")
    flip(output(go))
    assert go("prepare", value="abc", trust=True) == 1
    os.utime(output(go))
    assert go("prepare", value="abc", trust=True) == 2


def test_a_stage_that_means_something_else_now_is_stale(go, caplog):
    caplog.set_level("INFO")
    go("prepare")
    assert go("prepare", version=2) == 2
    assert "version of the stage (1 to 2) changed" in caplog.text


def test_another_version_of_the_package_keeps_what_is_finished(go, monkeypatch):
    go("prepare")
    monkeypatch.setattr("dsirm_jax.__version__", "9.9.9")
    assert go("prepare") == 1


def test_stages_that_do_not_go_together_are_named(go):
    for name in NEEDS:
        go(name)
    go("prepare", value=2)
    with pytest.raises(InputError, match="encode was made of another .*prepare than is there now"):
        go("quantize", value=2)


def test_a_stage_whose_input_is_made_anew_meanwhile_is_not_finished(go):
    go("prepare")

    def encode(layout, *, value):
        go("prepare", value=2)
        (layout.stage("encode") / "output.txt").write_text("of what was there before")

    go.functions["encode"] = encode
    stage = runner.Stage(name="encode", function=encode)
    with pytest.raises(InputError, match="was made anew while encode read it"):
        runner.run_stage(
            stage,
            go.layout,
            bindings={"value": 1},
            described={"value": 1},
            needed={"prepare": go.layout.stage("prepare")},
            config="",
        )
    assert not json.loads((go.layout.stage("encode") / "stage.json").read_text())["finished"]


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


def test_a_successor_lies_beside_in_every_half_and_rung(tmp_path):
    rung = Layout(model_dir=tmp_path).exchanged().for_rung("unsupervised")
    folder = rung.succeeding("quantize").stage("quantize")
    assert folder == tmp_path / "successors/exchanged/ablation/unsupervised/quantize"
    assert rung.succeeding("quantize").items == tmp_path / "exchanged/prepare/items.parquet"
