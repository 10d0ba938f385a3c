"""ICD coding metrics as an evaluate module. The maths is in `kept_hf.metrics`; this file only carries it."""

from __future__ import annotations

from collections.abc import Sequence

import datasets
import evaluate

from kept_hf.metrics import icd_metrics

_DESCRIPTION = """\
The metrics of automatic ICD coding (multi-label classification with many rare codes), after CAML's public evaluation:
accuracy (Jaccard), precision, recall and F1, each macro and micro; both macro-F1s that the field uses; macro and micro
AUC; precision, recall and F1 at k; mean average precision.
"""

_CITATION = """\
@inproceedings{mullenbach-etal-2018-explainable,
    title = "Explainable Prediction of Medical Codes from Clinical Text",
    author = "Mullenbach, James and Wiegreffe, Sarah and Duke, Jon and Sun, Jimeng and Eisenstein, Jacob",
    booktitle = "Proceedings of NAACL-HLT 2018",
    year = "2018",
    pages = "1101--1111",
}
@inproceedings{yang-etal-2022-knowledge,
    title = "Knowledge Injected Prompt Based Fine-tuning for Multi-label Few-shot {ICD} Coding",
    author = "Yang, Zhichao and Wang, Shufan and Rawat, Bhanu Pratap Singh and Mitra, Avijit and Yu, Hong",
    booktitle = "Findings of EMNLP 2022",
    year = "2022",
    eprint = "2210.03304",
    archivePrefix = "arXiv",
}
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions: for each note a list of one score per code. The order of the codes is the same in every note.
    references: for each note a list of one 0 or 1 per code, in the same order.
    ks: numbers of best-scored codes a note for the metrics at k; those above the number of codes are skipped.
        Default (5, 8, 15, 50).
    threshold: a code is assigned where its score is above it. Default 0, for scores that are logits; with
        input="probabilities" 0.5.
    input: "scores" (default), any numbers, or "probabilities".

Returns:
    dict of metric name and float; see the card or `kept_hf.metrics.icd_metrics`.

Raises:
    ValueError: rows of unequal length, NaN among the predictions, references other than 0 and 1, no notes; another
        `input`, or "probabilities" outside [0, 1].

Examples:
    >>> import evaluate
    >>> from kept_hf.metrics import ICD_METRIC_PATH
    >>> icd_coding = evaluate.load(ICD_METRIC_PATH)
    >>> results = icd_coding.compute(
    ...     predictions=[[2.0, 1.0, -1.0], [0.5, -2.0, 3.0]], references=[[1, 0, 0], [1, 0, 1]], ks=[1, 2]
    ... )
    >>> round(results["f1_micro"], 3), round(results["f1_macro"], 3), results["precision_at_1"]
    (0.857, 0.667, 1.0)
"""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class IcdCoding(evaluate.Metric):
    """ICD coding metrics after CAML's definitions."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features(
                {
                    # Single-precision scores would gain ties when given in double; double holds both exactly. The same
                    # width keeps references such as 0.5 or -100 visible to the check.
                    "predictions": datasets.Sequence(datasets.Value("float64")),
                    "references": datasets.Sequence(datasets.Value("float64")),
                }
            ),
            reference_urls=["https://aclanthology.org/N18-1100", "https://arxiv.org/abs/2210.03304"],
        )

    def _compute(
        self,
        predictions: list[list[float]],
        references: list[list[float]],
        ks: Sequence[int] = (5, 8, 15, 50),
        threshold: float | None = None,
        input: str = "scores",
    ) -> dict[str, float]:
        if input not in ("scores", "probabilities"):
            raise ValueError(f"input={input!r} is unknown; pass one of scores, probabilities.")
        if input == "probabilities":
            if any(not 0 <= value <= 1 for row in predictions for value in row):
                raise ValueError(
                    "input='probabilities', but predictions has values outside [0, 1]; pass input='scores'."
                )
            threshold = 0.5 if threshold is None else threshold
        try:
            return icd_metrics(predictions, references, ks=ks, threshold=threshold)
        except ValueError as error:
            raise ValueError(f"{error} (In this module scores are `predictions`, labels are `references`.)") from error
