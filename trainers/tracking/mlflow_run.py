"""MLflow, through its client: its fluent functions keep their run for a thread or for the whole process."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from pitstop.checkpointing.runs.metadata import COMPLETED, FAILED, INTERRUPTED
from pitstop.configs.errors import SettingsError, first_line
from pitstop.trainers.tracking.tracker import REACH_TIMEOUT_S, RunTracker, is_identity, reach, set_defaults, shown

_STATUS = {COMPLETED: "FINISHED", INTERRUPTED: "KILLED", FAILED: "FAILED"}
_LONGEST_PARAM = 6000
_FOREIGN = re.compile(r"[^\w\-. /:]", re.ASCII)  # in names of metrics
_PARAMS_AT_ONCE = 100
# A server that hangs is asked once and not for long; an entry that fails is tried again by whoever logs it.
_ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": str(REACH_TIMEOUT_S),
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
_WAY_OUT = "Set MLFLOW_TRACKING_URI to the address of a server that runs"
_LOGGERS = ("mlflow", "alembic", "urllib3.connectionpool")


class MlflowRun(RunTracker):
    """A resume goes on in the run of the same id, if the server still has it."""

    name = "mlflow"
    package = "mlflow"

    @classmethod
    def check(cls) -> None:
        """Package and server."""
        set_defaults(_ENVIRONMENT)
        super().check()
        client = _client()
        if client.tracking_uri.startswith(("http://", "https://")):
            reach(cls.name, client.tracking_uri, _WAY_OUT)
        try:
            client.search_experiments(max_results=1)
        except Exception as error:  # it raises its own kinds, and those of requests and of databases
            raise SettingsError(
                f"REPORT_TO = mlflow: {shown(client.tracking_uri)} cannot be used ({shown(first_line(error))[:300]}).",
                hint=f"{_WAY_OUT}, or leave mlflow out of --report-to.",
            ) from error

    def start(self) -> None:
        """Begin the run, or go on with it."""
        set_defaults(_ENVIRONMENT)
        self._client = _client()
        self._run_id = self._earlier_run()
        if not self._run_id:
            tags = {"mlflow.note.content": self.subject.name, "pitstop.name": self.subject.name, "mlflow.source.name": "pitstop"}
            run = self._client.create_run(self._experiment(), run_name=self.subject.label, tags=tags)
            self._run_id = str(run.info.run_id)

    def _earlier_run(self) -> str:
        """The id of the run of an earlier process, taken up again; empty where the server has none, or it was deleted."""
        from mlflow.exceptions import MlflowException

        run_id = self.subject.identity
        if not is_identity(run_id):
            return ""
        try:
            if self._client.get_run(run_id).info.lifecycle_stage != "active":
                return ""
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return ""
        self._client.update_run(run_id, status="RUNNING")
        return run_id

    def _experiment(self) -> str:
        from mlflow.exceptions import MlflowException

        project = self.subject.project
        experiment = self._client.get_experiment_by_name(project)
        if experiment is None:
            try:
                return str(self._client.create_experiment(project))
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":  # by another training, meanwhile
                    raise
                experiment = self._client.get_experiment_by_name(project)
        return str(experiment.experiment_id)

    @property
    def tracker(self) -> Any:
        """The client."""
        return self._client

    @property
    def identity(self) -> str:
        """The run's id."""
        return self._run_id

    def last_step(self) -> int | None:
        """The newest step with a loss."""
        return max((metric.step for metric in self._client.get_metric_history(self._run_id, "loss")), default=0)

    def store_init_configuration(self, values: Mapping[str, Any]) -> None:
        """The run's params; they can be set only once, so that one that has another value already keeps it."""
        from mlflow.entities import Param

        recorded = self._client.get_run(self._run_id).data.params
        params = [Param(key, str(value)[:_LONGEST_PARAM]) for key, value in values.items() if key not in recorded]
        for start in range(0, len(params), _PARAMS_AT_ONCE):
            self._client.log_batch(self._run_id, params=params[start : start + _PARAMS_AT_ONCE])

    def note_changes(self, changes: Mapping[str, tuple[Any, Any]], step: int) -> None:
        """As tags ``changed.SETTING``."""
        for path, (former, value) in changes.items():
            self._client.set_tag(self._run_id, f"changed.{path}", f"{former} → {value} after step {step}")

    def log(self, values: Mapping[str, float], step: int | None = None, **_: Any) -> None:
        """All values in one request."""
        from mlflow.entities import Metric

        timestamp_ms = int(time.time() * 1000)
        metrics = [Metric(metric_name(key), float(value), timestamp_ms, step or 0) for key, value in values.items()]
        self._client.log_batch(self._run_id, metrics=metrics)

    def log_text(self, name: str, text: str, step: int) -> None:
        """As the artifact ``NAME/step_00000100.txt``."""
        self._client.log_text(self._run_id, text, f"{name}/step_{step:08d}.txt")

    def log_image(self, name: str, image: np.ndarray, step: int) -> None:
        """As the artifact ``NAME/step_00000100.png``."""
        self._client.log_image(self._run_id, image, f"{name}/step_{step:08d}.png")

    def finish(self, status: str = COMPLETED) -> None:
        """FINISHED, KILLED or FAILED."""
        self._client.set_terminated(self._run_id, _STATUS[status])


def _client() -> Any:
    from mlflow import MlflowClient

    for name in _LOGGERS:  # after the import, which sets their levels
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return MlflowClient()


def metric_name(name: str) -> str:
    """``ndcg@10`` as ``ndcg_at_10``: of signs MLflow takes ``_ - . / :`` and spaces alone in a metric's name."""
    return _FOREIGN.sub("_", name.replace("@", "_at_"))
