"""Where the published system is odd, in what it asks a model, and a map of its other oddities.

This package does what is right by default; the published behaviour is a named option, for checkpoints that were trained
so and for comparisons. What belongs to prompts travels with a model and is here: the presets named exact
([`EXACT_PRESET`]) and [`KEPT_50_PROMPT_ORDER`]. What does not travel stands with what it is an option of:

- `kept_hf.metrics.best_micro_f1_threshold(..., published=True)`: the search of thresholds with its three faults.
- `kept_hf.corpora.mimic3`: `published_titles=True`, titles of codes as KEPT's code reads them, and
  `repair_codes=False`, the codes of rare50 that lost digits; `published_reading=True`, all codes as it reads them.
- `kept_hf.reranking.published_fill`: the score of codes that were not asked.
- `kept_hf.candidates`: the text files that the first stage hands to the reranker.
- `MSMNConfig.pool_term_padding`: MSMN's maximum over the padding of terms.

Source: the code of Yang et al., Findings of EMNLP 2022 (arXiv 2210.03304).
"""

from __future__ import annotations

PUBLISHED_SECTION_HEADERS = (
    "chief complaint:",
    "major surgical or invasive procedure:",
    "procedure:",
    "history of present illness:",
    "past eedical history:",
    "brief hospital course:",
    "discharge diagnosis:",
    "discharge diagnoses:",
    "discharge condition:",
)
"""`prompting.SECTION_HEADERS` as the public code has them: one is misspelt, so that its section is never kept."""

EXACT_PRESET = {"section_headers": PUBLISHED_SECTION_HEADERS, "leaves_empty": True, "removes_underscores": False}
"""Fields of `prompting.PromptPreset` in which `kept-50-exact` and `kept-rerank-exact` differ from `kept-50` and
`kept-rerank`."""

KEPT_50_PROMPT_ORDER = (
    "401.9", "272.4", "427.31", "414.01", "428.0", "38.93", "584.9", "250.00", "530.81", "96.71",
    "518.81", "599.0", "285.9", "96.04", "96.6", "39.61", "403.90", "244.9", "285.1", "311",
    "276.2", "V15.82", "96.72", "V58.61", "305.1", "486", "585.9", "995.92", "496", "88.56",
    "272.0", "276.1", "038.9", "38.91", "287.5", "36.15", "33.24", "412", "V45.81", "424.0",
    "507.0", "37.22", "511.9", "410.71", "99.15", "45.13", "88.72", "39.95", "37.23", "99.04",
)  # fmt: skip
"""The order in which the public prompt lists the 50 codes of MIMIC-III-50, while its labels are in sorted order.

A checkpoint that was trained so needs `KeptProcessor(..., prompt_order=KEPT_50_PROMPT_ORDER)`.
"""
