"""Metrics of ICD coding, after the definitions of CAML's public evaluation code. Pure functions of numpy arrays.

All of them take `scores` and `labels` of shape (notes, codes). A code is assigned to a note where its score is above
the threshold; a score is `logit("yes") - logit("no")` or any other number that grows with the belief in the code.

Few of the notes × codes pairs are gold (16 of 8,692 a note in MIMIC-III). So whatever needs the rank of a score is
computed for the gold pairs alone, and the scores are sorted one block at a time.
"""

import os

from .counting import metrics_of_counts
from .per_code import per_code_metrics
from .registry import icd_metrics
from .thresholds import best_macro_f1_threshold, best_micro_f1_threshold, micro_precision_recall_curve

ICD_METRIC_PATH = os.path.join(os.path.dirname(os.path.abspath(__file__)), "evaluate_modules", "icd_coding")
"""Folder of the evaluate module: `evaluate.load(ICD_METRIC_PATH)`."""

__all__ = [
    "ICD_METRIC_PATH",
    "best_macro_f1_threshold",
    "best_micro_f1_threshold",
    "icd_metrics",
    "metrics_of_counts",
    "micro_precision_recall_curve",
    "per_code_metrics",
]
