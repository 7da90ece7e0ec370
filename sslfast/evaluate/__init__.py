"""Evaluation: one file a protocol, the same baselines for every run."""

from __future__ import annotations

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
