import importlib
import json
import sys
import time

import pytest

from dsirm_jax.io.errors import InputError
from dsirm_jax.report import mlflow_run
from dsirm_jax.run.layout import Layout
from dsirm_jax.run.record import StageRecord, complete, write_record
from dsirm_jax.training import events

BINDINGS = {"SEED": "0", "no_sid/T5Config.num_layers": "2", "prepare.run.source": "x" * 7000}
METRICS = {
    "queries": 404,
    "rungs": {"full": {"ndcg@10": {"value": 0.75, "low": 0.5, "high": 1.0}}},
    "lifts": {"full": {"rung": "full", "ndcg@10": {"value": 0.25, "low": 0.125, "relative": 0.1}}},
    "esci": {"macro_f1": 0.5},
}


@pytest.fixture
def layout(tmp_path):
    return Layout(model_dir=tmp_path / "run")


@pytest.fixture
def store(tmp_path, monkeypatch):
    for name in ("MLFLOW_ALLOW_FILE_STORE", "MLFLOW_DISABLE_TELEMETRY"):
        monkeypatch.delenv(name, raising=False)
    return str(tmp_path / "mlruns")


def followed(layout, store, *, bindings=BINDINGS, seconds=3600.0):
    return mlflow_run.followed(
        layout, uri=store, experiment="shop", bindings=bindings, seconds=seconds
    )


def runs(store):
    """Imports MLflow late, as the package does: first its telemetry is turned off."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"file:{store}")
    (experiment,) = [of for of in client.search_experiments() if of.name == "shop"]
    return client, client.search_runs([experiment.experiment_id], order_by=["start_time"])


def train(layout, stage, *, steps):
    with events.writer(layout.stage(stage) / "logs") as write:
        for step in steps:
            write(step, {"loss": 1 / step})


def finish(layout, name, **files):
    folder = layout.stage(name)
    folder.mkdir(parents=True, exist_ok=True)
    for file, text in files.items():
        (folder / file.replace("_", ".")).write_text(text)
    record = StageRecord(stage=name, stage_version=1, version="1", bindings={}, inputs={})
    write_record(folder, complete(folder, record, seconds=1.0))


def history(client, run, name):
    points = client.get_metric_history(run.info.run_id, name)
    return [(point.step, point.value) for point in points]


def test_an_interrupted_run_goes_on_in_the_same_run(layout, store):
    with pytest.raises(SystemExit), followed(layout, store):
        train(layout, "encode", steps=[1, 2])
        raise SystemExit(75)
    client, (run,) = runs(store)
    assert (run.info.status, run.info.run_name) == ("KILLED", "run")
    assert history(client, run, "encode/loss") == [(1, 1), (2, 0.5)]
    assert "mlflow.user" not in run.data.tags
    with followed(layout, store):
        train(layout, "encode", steps=[4])
        train(layout.for_rung("no_sid"), "generate", steps=[1])
        (layout.model_dir / "replaced" / "encode-1").mkdir(parents=True)
        train(Layout(model_dir=layout.model_dir / "replaced"), "encode-1", steps=[8])
        layout.config.write_text("SEED = 0\n")
        finish(layout, "relevance", metrics_json=json.dumps(METRICS))
        finish(layout, "report", index_html="<html></html>")
        layout.report.write_text("<html></html>")
    with followed(layout, store):
        pass  # nothing is sent twice
    telemetry = importlib.import_module("mlflow.telemetry.utils")
    assert telemetry.is_telemetry_disabled()
    client, (run,) = runs(store)
    assert run.info.status == "FINISHED"
    assert history(client, run, "encode/loss") == [(1, 1), (2, 0.5), (4, 0.25)]
    assert history(client, run, "rungs/full/ndcg_10") == [(0, 0.75)]
    assert run.data.metrics == {
        "encode/loss": 0.25,
        "ablation/no_sid/generate/loss": 1,
        "rungs/full/ndcg_10": 0.75,
        "rungs/full/ndcg_10.low": 0.5,
        "rungs/full/ndcg_10.high": 1,
        "lifts/full/ndcg_10": 0.25,
        "lifts/full/ndcg_10.low": 0.125,
        "lifts/full/ndcg_10.relative": 0.1,
    }
    assert run.data.params == BINDINGS | {"prepare.run.source": "x" * 6000}
    files = sorted(file.path for file in client.list_artifacts(run.info.run_id))
    assert files == sorted(["config.gin", "metrics.json", layout.report.name])


def test_another_configuration_is_another_run(layout, store):
    with followed(layout, store):
        train(layout, "encode", steps=[1])
    with followed(layout, store, bindings=BINDINGS | {"SEED": "1"}):
        pass
    _, found = runs(store)
    assert [run.data.params["SEED"] for run in found] == ["0", "1"]
    record = json.loads((layout.model_dir / "mlflow.json").read_text())
    assert record == {"run_id": found[1].info.run_id}


def test_curves_are_there_while_the_run_goes_on(layout, store):
    with followed(layout, store, seconds=0.01):
        train(layout, "encode", steps=[1])
        client, (run,) = runs(store)
        for _ in range(1000):
            found = client.get_run(run.info.run_id)
            if found.data.metrics:
                break
            time.sleep(0.01)
        assert (found.info.status, found.data.metrics) == ("RUNNING", {"encode/loss": 1})


def test_a_store_that_is_gone_stops_no_training(layout, store, caplog, monkeypatch):
    mlflow = pytest.importorskip("mlflow")

    def gone(*arguments, **settings):
        raise mlflow.exceptions.MlflowException("the server is gone")

    with followed(layout, store):
        monkeypatch.setattr(mlflow.MlflowClient, "log_batch", gone)
        train(layout, "encode", steps=[1])
    assert "does not answer: the server is gone" in caplog.text
    monkeypatch.undo()
    with followed(layout, store):
        pass
    client, (run,) = runs(store)
    assert history(client, run, "encode/loss") == [(1, 1)]


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("https://me:hunter22@tracking.example", "--mlflow holds a password"),
        ("https://me:${NO_SUCH}@tracking.example", "environment variable NO_SUCH is not set"),
        ("nonsense://somewhere", "--mlflow=nonsense://somewhere: MLflow cannot open it"),
    ],
)
def test_a_store_that_cannot_be_is_refused(layout, uri, message):
    with pytest.raises(InputError, match=message), followed(layout, uri):
        raise AssertionError


def test_without_mlflow_the_extra_is_named(layout, store, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    message = r"MLflow is not installed: pip install '.\[mlflow\]'"
    with pytest.raises(InputError, match=message), followed(layout, store):
        raise AssertionError
