"""A run in MLflow, beside TensorBoard: bindings, curves, figures and page.

Training writes TensorBoard's files alone. A thread reads these and sends what MLflow does not have
yet, so that no step waits for a store, and what a store misses while it is away comes later.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsirm_jax.io.errors import InputError
from dsirm_jax.io.files import write_text
from dsirm_jax.io.secrets import check_public, erased, resolved
from dsirm_jax.report.curves import read_points
from dsirm_jax.run.layout import Layout
from dsirm_jax.run.record import is_finished

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger(__name__)
INSTALL = "pip install '.[mlflow]' in a checkout"
FLAG = "--mlflow"
RECORD = "mlflow.json"
"""In MODEL_DIR: which run of MLflow goes on with it."""
CONFIGURATION = "dsirm.configuration"
"""Tag: a hash of the bindings. Another configuration is another run, as parameters stay."""
SECONDS = 30.0
MOST_OF_VALUE, MOST_PARAMS, MOST_METRICS = 6000, 100, 1000
"""Letters of a parameter, and how many MLflow takes at once."""
FIGURES = ("rungs", "lifts")
"""Parts of metrics.json that are metrics there; the file itself is an artefact."""


@contextlib.contextmanager
def followed(
    layout: Layout,
    *,
    uri: str,
    experiment: str,
    bindings: Mapping[str, str],
    seconds: float = SECONDS,
) -> Iterator[None]:
    """Sends what a run logs to MLflow while the block works on it, and the rest at its end.

    A run that was interrupted goes on in the same run of MLflow, unless its bindings are others.

    Args:
      layout: of the run.
      uri: of the store: a folder, `file:`, `http:` or `https:`, or what else MLflow knows; a secret
        in it is written as `${NAME}`.
      experiment: name of MLflow's; made where it is missing.
      bindings: of the configuration, as text by name.
      seconds: between two looks at the files.

    Raises:
      InputError: MLflow is not installed, or has no such store.
    """
    client = _client(uri)
    from mlflow.exceptions import MlflowException

    try:
        run_id = _run_id(client, layout, experiment=experiment, bindings=bindings)
    except MlflowException as error:
        raise _refused(uri, error) from error
    known = _Known(client, run_id)
    log.info("MLflow: run %s of the experiment %r in %s", run_id, experiment, uri)
    ended, is_away = threading.Event(), False

    def send(*, whole: bool = False) -> None:
        nonlocal is_away
        try:
            known.send(_curves(layout.model_dir))
            if whole:
                _send_results(client, run_id, layout)
        except (MlflowException, OSError) as error:
            if not is_away or whole:
                reason = erased(str(error).splitlines()[0], uri)
                log.warning("MLflow lacks what it is sent later, it does not answer: %s", reason)
            is_away = True
        else:
            is_away = False

    def follow() -> None:
        while not ended.wait(seconds):
            send()

    thread = threading.Thread(target=follow, name="mlflow", daemon=True)
    thread.start()
    status = "FAILED"
    try:
        yield
        status = "FINISHED"
    except (KeyboardInterrupt, SystemExit):
        status = "KILLED"
        raise
    finally:
        ended.set()
        thread.join()
        send(whole=True)
        with contextlib.suppress(MlflowException, OSError):
            client.set_terminated(run_id, status)


class _Known:
    """What MLflow has of the curves of a run: the time of the last point of each."""

    def __init__(self, client: MlflowClient, run_id: str) -> None:
        self._client, self._run_id = client, run_id
        self._last: dict[str, int] = {}

    def send(self, curves: Mapping[str, Sequence[tuple[int, int, float]]]) -> None:
        """Sends points that are later, by curve: (millisecond, step, value)."""
        from mlflow.entities import Metric

        later = []
        for name, points in curves.items():
            if name not in self._last:
                history = self._client.get_metric_history(self._run_id, name)
                self._last[name] = max((point.timestamp for point in history), default=-1)
            later += [
                Metric(name, value, at, step) for at, step, value in points if at > self._last[name]
            ]
        later.sort(key=lambda metric: metric.timestamp)
        for start in range(0, len(later), MOST_METRICS):
            some = later[start : start + MOST_METRICS]
            self._client.log_batch(self._run_id, metrics=some)
            self._last |= {metric.key: metric.timestamp for metric in some}


def _client(uri: str) -> MlflowClient:
    check_public(FLAG, uri)
    # Both are read when MLflow is imported, or a store opened: it is to send nothing of its own,
    # and refuses folders, which are what its lean package has without a server.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
    try:
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException
    except ImportError as error:
        raise InputError(f"{FLAG}={uri}: MLflow is not installed: {INSTALL}") from error
    store = resolved(uri, binding=FLAG)
    if not re.match(r"[a-z][a-z0-9+.-]+:", store):
        store = Path(store).resolve().as_uri()
    try:
        return MlflowClient(tracking_uri=store)
    except (MlflowException, ImportError) as error:
        raise _refused(uri, error) from error


def _refused(uri: str, error: Exception) -> InputError:
    reason = erased(str(error).strip().splitlines()[0], uri)
    return InputError(
        f"{FLAG}={uri}: MLflow cannot open it ({reason}); give a folder or the URL of a server; a "
        f"database needs the package mlflow as a whole"
    )


def _run_id(
    client: MlflowClient, layout: Layout, *, experiment: str, bindings: Mapping[str, str]
) -> str:
    """Returns the run that goes on, or a new one."""
    from mlflow.entities import Param
    from mlflow.exceptions import MlflowException

    configuration = hashlib.sha256(json.dumps([*bindings.items()]).encode()).hexdigest()[:16]
    record = layout.model_dir / RECORD
    if record.is_file():
        run_id = str(json.loads(record.read_text("utf-8")).get("run_id"))
        with contextlib.suppress(MlflowException):  # it is of another store, or was deleted
            found = client.get_run(run_id)
            is_active = found.info.lifecycle_stage == "active"
            if is_active and found.data.tags.get(CONFIGURATION) == configuration:
                client.update_run(run_id, status="RUNNING")
                return run_id
    known = client.get_experiment_by_name(experiment)
    number = known.experiment_id if known else client.create_experiment(experiment)
    made = client.create_run(
        number, run_name=layout.model_dir.name, tags={CONFIGURATION: configuration}
    )
    params = [Param(name, value[:MOST_OF_VALUE]) for name, value in bindings.items()]
    for start in range(0, len(params), MOST_PARAMS):
        client.log_batch(made.info.run_id, params=params[start : start + MOST_PARAMS])
    write_text(record, json.dumps({"run_id": made.info.run_id}) + "\n")
    return made.info.run_id


def _curves(model_dir: Path) -> dict[str, list[tuple[int, int, float]]]:
    """Returns the points of every curve, such as `ablation/no_sid/generate/loss`."""
    curves = {}
    for logs in sorted({file.parent for file in model_dir.glob("**/logs/events.out.tfevents.*")}):
        stage = logs.parent.relative_to(model_dir)
        if stage.parts[0] in ("replaced", "successors"):
            continue
        for tag, points in read_points(logs).items():
            curves[_name(f"{stage.as_posix()}/{tag}")] = [
                (int(1000 * at), step, value) for step, (at, value) in points.items()
            ]
    return curves


def _send_results(client: MlflowClient, run_id: str, layout: Layout) -> None:
    """Sends the figures and files of the stages that are finished, where they are new."""
    sent = client.get_run(run_id).data.metrics
    files = [layout.config]
    if is_finished(layout.stage("relevance")):
        files.append(layout.metrics)
        metrics = json.loads(layout.metrics.read_text("utf-8"))
        for name, value in _figures({part: metrics.get(part, {}) for part in FIGURES}):
            if sent.get(name) != value:
                client.log_metric(run_id, name, value)
    if is_finished(layout.stage("report")):
        files.append(layout.report)
    for file in files:
        if file.is_file():
            client.log_artifact(run_id, str(file))


def _figures(tree: Any, name: str = "") -> Iterator[tuple[str, float]]:
    """Yields numbers by their path, such as `rungs/full/roc_auc`, and of its interval `….low`."""
    if isinstance(tree, Mapping):
        for part, below in tree.items():
            joined = name if part == "value" else f"{name}.{part}" if "value" in tree else ""
            yield from _figures(below, joined or f"{name}/{part}".strip("/"))
    elif isinstance(tree, int | float) and not isinstance(tree, bool):
        yield _name(name), float(tree)


def _name(text: str) -> str:
    """Returns a name that MLflow takes: of `ndcg@10` it is `ndcg_10`."""
    return re.sub(r"[^\w./ :-]", "_", text, flags=re.ASCII)
