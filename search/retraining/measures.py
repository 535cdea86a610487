"""How well predictions are right: accuracy, per class, and over several trainings. Plain data, for JSON."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from studies.statistics import mean_interval

CONFIDENCE = 0.95
SHARE = (0.0, 1.0)
"""Between what an accuracy lies."""
PER_CLASS = ("precision", "recall", "f1")


def accuracy_of(labels_N: NDArray[np.int64], predicted_N: NDArray[np.int64]) -> float:
    """Share of correct predictions, 0 to 1."""
    return int((labels_N == predicted_N).sum()) / len(labels_N)


def loss_of(labels_N: NDArray[np.int64], log_p_NK: NDArray[np.float32]) -> float | None:
    """Mean cross-entropy; None if it is no finite number."""
    loss = -float(log_p_NK[np.arange(len(labels_N)), labels_N].mean(dtype=np.float64))
    return loss if math.isfinite(loss) else None


def per_class(
    labels_N: NDArray[np.int64], predicted_N: NDArray[np.int64], classes: Sequence[str]
) -> list[dict[str, Any]]:
    """Precision, recall, F1 (0 to 1; 0 where a class was never predicted) and support of each class."""
    from sklearn.metrics import precision_recall_fscore_support

    numbers = range(len(classes))
    columns = precision_recall_fscore_support(labels_N, predicted_N, labels=list(numbers), zero_division=0)
    names = ("class", *PER_CLASS, "support")
    rows = zip(classes, *(column.tolist() for column in columns), strict=True)
    return [dict(zip(names, row, strict=True)) for row in rows]


def confusion(labels_N: NDArray[np.int64], predicted_N: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """Images by true class (rows) and predicted class, counts_KK."""
    from sklearn.metrics import confusion_matrix

    counts_KK: NDArray[np.int64] = confusion_matrix(labels_N, predicted_N, labels=list(range(classes)))
    return counts_KK


def over_seeds(
    values: Sequence[float | None], within: tuple[float, float] = (0.0, math.inf)
) -> dict[str, Any] | None:
    """Mean, standard deviation and Student's t interval of a figure over trainings that differ by their seeds
    alone; None if a value is missing. The interval says nothing about another sample of images."""
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return None
    interval = mean_interval(known, CONFIDENCE, within)
    return {
        "n": len(known),
        "mean": statistics.fmean(known),
        "spread": statistics.stdev(known) if len(known) > 1 else None,
        "low": interval.low if interval else None,
        "high": interval.high if interval else None,
        "confidence": CONFIDENCE if interval else None,
        "values": known,
    }


def per_class_over_seeds(runs: Sequence[Sequence[dict[str, Any]]]) -> list[dict[str, Any]]:
    """``per_class`` of several trainings as mean and standard deviation of each figure."""
    return [
        {
            "class": rows[0]["class"],
            **{name: statistics.fmean(row[name] for row in rows) for name in PER_CLASS},
            **{f"{name}_spread": _spread([row[name] for row in rows]) for name in PER_CLASS},
            "support": rows[0]["support"],
        }
        for rows in zip(*runs, strict=True)
    ]


def _spread(values: Sequence[float]) -> float | None:
    return statistics.stdev(values) if len(values) > 1 else None
