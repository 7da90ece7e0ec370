"""MLflow. Its own environment variables decide where to: MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


class MLflow:
    """One run there. Points that it has of a curve, it does not take again."""

    def __init__(self, run: Path, config: dict[str, Any], known: str | None) -> None:
        import mlflow

        self._mlflow = mlflow
        # Nested, for the case that the caller has a run of his own.
        self.id = mlflow.start_run(run_id=known, run_name=run.resolve().name, nested=True).info.run_id
        if not known:
            mlflow.log_params(config, run_id=self.id)
        self._last: dict[str, int] | None = {} if known else None  # a resumed run's steps so far, by curve

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        new = {name: value for name, value in values.items() if self._is_new(name, step)}
        self._mlflow.log_metrics(new, step=step, run_id=self.id)

    def close(self, *, failed: bool) -> None:
        self._mlflow.end_run("FAILED" if failed else "FINISHED")

    def _is_new(self, curve: str, step: int) -> bool:
        if self._last is None:
            return True
        if curve not in self._last:
            points = self._mlflow.MlflowClient().get_metric_history(self.id, curve)
            self._last[curve] = max((point.step for point in points), default=-1)
        return step > self._last[curve]
