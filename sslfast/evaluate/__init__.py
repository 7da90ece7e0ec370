"""Evaluation: one file a protocol, the same baselines for every run.

The package can be called: `sslfast.evaluate(run, "knn")` is `sslfast.evaluate.evaluate(run, "knn")`.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

from sslfast.evaluate.evaluation import Evaluation, evaluate, standard_result
from sslfast.evaluate.features import extract_features
from sslfast.evaluate.geometry import alignment, uniformity
from sslfast.evaluate.knn import knn_accuracy
from sslfast.evaluate.linear import linear_probe
from sslfast.evaluate.protocols import PROTOCOLS, Protocol
from sslfast.evaluate.results import read_results
from sslfast.evaluate.run import Run
from sslfast.evaluate.task import Task

__all__ = [
    "PROTOCOLS",
    "Evaluation",
    "Protocol",
    "Run",
    "Task",
    "alignment",
    "evaluate",
    "extract_features",
    "knn_accuracy",
    "linear_probe",
    "read_results",
    "standard_result",
    "uniformity",
]


class _Evaluate(ModuleType):
    def __call__(self, *arguments: Any, **options: Any) -> dict[str, Any]:
        return evaluate(*arguments, **options)


sys.modules[__name__].__class__ = _Evaluate
