"""What zero-shot pretraining is evaluated on: prompts about held-out concepts, and notes that it has no labels of."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from torch.utils.data import Dataset

from ...metrics import icd_metrics
from ...models.processing_kept import KeptProcessor
from ...training.merging import AskedPairs
from ...training.rows import prompt_rows
from .examples import size_between
from .passages import PassageSource
from .prompts import prompt_row

if TYPE_CHECKING:
    import datasets
    from transformers import EvalPrediction

ZERO_SHOT_METRICS = ("auc_macro", "auc_micro", "map")
"""Of [`kept_hf.metrics.icd_metrics`]: those that need no threshold."""


@dataclass
class _Group:
    """Rows that are evaluated together.

    Attributes:
        name: of its metrics.
        notes: their numbers (`label_notes`) in the whole task.
        num_codes: that each note is asked about.
        metrics: metric of `icd_metrics` → its name in this group.
    """

    name: str
    notes: range
    num_codes: int
    metrics: dict[str, str]


@dataclass
class ZeroShotTask(Dataset):
    """Prompts to be answered, `eval_dataset` for the Trainer; `compute_metrics` evaluates the answers.

    Attributes:
        rows: the model's inputs and labels; `add_concepts` and `add_notes` add some.
        titles: metric → what it is.

    Examples:
        >>> task = ZeroShotTask()
        >>> task.add_concepts("short", source, concepts, processor, 100, 8, 4)  # doctest: +SKIP
        >>> task.add_notes(corpus.dataset["validation"], processor, codes_per_prompt=50)  # doctest: +SKIP
        >>> trainer = Trainer(model, eval_dataset=task, compute_metrics=task.compute_metrics)  # doctest: +SKIP
    """

    rows: list[dict[str, list[int]]] = field(default_factory=list, init=False)
    titles: dict[str, str] = field(default_factory=dict, init=False)
    _groups: list[_Group] = field(default_factory=list, init=False)

    def add_concepts(
        self,
        name: str,
        source: PassageSource,
        concepts: np.ndarray,
        processor: KeptProcessor,
        num_prompts: int,
        num_codes: int,
        num_sentences: int,
        seed: int = 0,
    ) -> None:
        """Add prompts about some concepts, each mentioned in an inserted sentence, if at all.

        Adds the metric `{name}_auc`, the area under the ROC curve over all pairs of prompt and concept.

        Args:
            name: of the group.
            source: draws texts; it should not train on `concepts`.
            concepts: numbers in the graph.
            processor: writes the prompts.
            num_prompts, num_codes, num_sentences: how many, and of what size.
            seed: of the draws.

        Raises:
            ValueError: fewer concepts than a prompt has.
        """
        if len(concepts) < num_codes:
            raise ValueError(f"concepts has {len(concepts)}, fewer than the num_codes={num_codes} of a prompt.")
        generator = random.Random(seed)
        examples = (source.draw(generator, num_codes, num_sentences, only=concepts) for _ in range(num_prompts))
        rows = [prompt_row(example, processor) for example in examples]
        # Each prompt stands for itself, as if it were a note with codes of its own.
        rows = [
            {**row, "label_notes": number, "label_codes": list(range(num_codes))} for number, row in enumerate(rows)
        ]
        self._add(name, rows, num_codes, {"auc_micro": f"{name}_auc"})
        self.titles[f"{name}_auc"] = f"held-out concepts, {num_codes} a prompt: AUC"

    def add_notes(self, notes: datasets.Dataset, processor: KeptProcessor, codes_per_prompt: int | None = None) -> None:
        """Add real notes, with prompts about all codes of the processor's code set.

        Adds `ZERO_SHOT_METRICS`, each after `zero_shot_{codes_per_prompt}_`.

        Args:
            notes: columns `text` and `codes`.
            processor: its code set is the task.
            codes_per_prompt: codes of a prompt; by default one prompt has all.
        """
        processor = processor.for_codes(processor.code_set, codes_per_prompt)
        rows = list(prompt_rows(notes, processor))
        size = processor.codes_per_prompt or len(processor.code_set)
        name = f"zero_shot_{size}"
        self._add(name, rows, len(processor.code_set), {metric: f"{name}_{metric}" for metric in ZERO_SHOT_METRICS})
        for metric, title in zip(ZERO_SHOT_METRICS, ("macro AUC", "micro AUC", "mean average precision"), strict=True):
            self.titles[f"{name}_{metric}"] = f"notes, {size} codes a prompt: {title}"

    def _add(self, name: str, rows: Sequence[dict], num_codes: int, metrics: dict[str, str]) -> None:
        first = self._groups[-1].notes.stop if self._groups else 0
        rows = [{**row, "label_notes": first + row["label_notes"]} for row in rows]
        self._groups.append(_Group(name, range(first, rows[-1]["label_notes"] + 1), num_codes, metrics))
        self.rows += rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, list[int]]:
        return self.rows[index]

    def compute_metrics(self, prediction: EvalPrediction) -> dict[str, float]:
        """The metrics of each group, of the predictions for all rows in any order."""
        metrics: dict[str, float] = {}
        pairs = AskedPairs.from_prediction(prediction)
        for group in self._groups:
            scores, labels = pairs.of_notes(group.notes.start, group.notes.stop).matrices(group.num_codes)
            found = icd_metrics(scores, labels, threshold=0.0)
            metrics |= {name: found[metric] for metric, name in group.metrics.items()}
        return metrics


def zero_shot_task(
    source: PassageSource,
    concepts: np.ndarray,
    processor: KeptProcessor,
    num_codes: Sequence[int],
    num_sentences: Sequence[int],
    notes: datasets.Dataset | None = None,
    codes_per_prompt: Sequence[int] = (),
    seed: int = 0,
) -> ZeroShotTask:
    """Short and long prompts about held-out concepts, and real notes.

    Args:
        source: draws texts.
        concepts: numbers of the held-out concepts.
        processor: writes the prompts; the notes are asked about the codes of its code set.
        num_codes, num_sentences: of the shortest and the longest prompts that are trained on.
        notes: columns `text` and `codes`.
        codes_per_prompt: the notes are evaluated with prompts of each of these sizes.
        seed: of the draws.
    """
    task = ZeroShotTask()
    for name, share, number in (("held_out_short", 0.1, 100), ("held_out_long", 1.0, 40)):
        codes, sentences = (size_between(sizes, share) for sizes in (num_codes, num_sentences))
        task.add_concepts(name, source, concepts, processor, number, min(codes, len(concepts)), sentences, seed)
    if notes is not None:
        for size in codes_per_prompt:
            task.add_notes(notes, processor, size)
    return task


def zero_shot_table(task: ZeroShotTask, measured: Mapping[str, Mapping[str, float]]) -> list[dict[str, object]]:
    """Rows for [`kept_hf.reports.tables.format_table`]: a metric each, before and after."""
    return [
        {"": title, **{name: metrics[metric] for name, metrics in measured.items()}}
        for metric, title in task.titles.items()
    ]
