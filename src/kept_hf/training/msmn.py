"""MSMN for the notes of a corpus: a new model and its words, rows for the Trainer, the candidates of a trained one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from accelerate.utils import gather_object
from datasets import Dataset, DatasetDict
from transformers import Trainer

from ..candidates.candidates import Candidates
from ..candidates.handover import write_handover_file
from ..candidates.msmn import MSMNFirstStage
from ..models.code_set import ICDCodeSet
from ..models.configuration_msmn import MSMNConfig
from ..models.modeling_msmn import MSMNForICDCoding
from ..models.tokenization_msmn import MSMNTokenizer
from .msmn_initialization import initialize_from_names

RECALL_AT = (50, 100, 300)
"""Numbers of candidates whose recall is reported."""
PUBLISHED_SPLITS = {"validation": "dev"}
"""Split → its name in published files, where it is another one."""
INITIALIZATION_NOTES = 64
"""Notes whose words count where a model is initialized from names."""


def new_msmn(
    texts: Sequence[str],
    code_set: ICDCodeSet,
    min_count: int = 3,
    data_license: str | None = None,
    max_words: int = 4000,
    **settings: object,
) -> tuple[MSMNForICDCoding, MSMNTokenizer]:
    """A new model that knows what the codes are called, and its tokenizer.

    Args:
        texts: whose words make the vocabulary.
        code_set: the codes and their names; some from a term graph with `code_set.with_synonyms(graph)`.
        min_count: words that occur less often are unknown.
        data_license: of the texts.
        max_words: words of a note that are read.
        settings: further fields of `MSMNConfig`.

    Examples:
        >>> code_set = ICDCodeSet(["I10", "R50.9"], {"I10": "High blood pressure", "R50.9": "Fever"})
        >>> model, tokenizer = new_msmn(["Fever and high blood pressure."], code_set, min_count=1, num_synonyms=1)
        >>> len(tokenizer), model.term_input_ids.shape
        (7, torch.Size([2, 3]))
    """
    tokenizer = MSMNTokenizer.from_texts(
        texts, min_count=min_count, model_max_length=max_words, data_license=data_license
    )
    config = MSMNConfig(
        vocab_size=len(tokenizer),
        id2label=code_set.id2label,
        label2id=code_set.label2id,
        data_license=data_license,
        max_words=max_words,
        **settings,
    )
    model = MSMNForICDCoding(config)
    names = [name for names in code_set.synonym_table(config.num_synonyms) for name in names]
    model.set_label_terms(**tokenizer(names, padding=True, return_tensors="pt"))
    return model, tokenizer


def set_initial_state(model: MSMNForICDCoding, tokenizer: MSMNTokenizer, notes: Dataset) -> None:
    """Initialize a new model from the names of its codes, with scores about the share of codes that a note has.

    Args:
        model: with its word vectors and the names of its codes.
        tokenizer: of the model.
        notes: columns `text` and `codes`, of the training split. Of the codes only their number counts.
    """
    step = max(len(notes) // INITIALIZATION_NOTES, 1)
    texts = notes["text"][::step][:INITIALIZATION_NOTES]
    encoded = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
    share = sum(map(len, notes["codes"])) / (len(notes) * model.config.num_labels)
    mean_logit = math.log(share / (1 - share))
    initialize_from_names(model, encoded["input_ids"], encoded["attention_mask"], mean_logit=mean_logit)


def note_rows(notes: Dataset, tokenizer: MSMNTokenizer, code_set: ICDCodeSet) -> Dataset:
    """Rows for the Trainer: words, the numbers of the gold codes, length."""

    def rows(batch: dict) -> dict:
        encoded = tokenizer(batch["text"], truncation=True)
        # Published labels name some codes of a note twice.
        labels = [
            [code_set.index(code) for code in dict.fromkeys(codes) if code in code_set] for codes in batch["codes"]
        ]
        return {**encoded, "labels": labels, "length": [len(ids) for ids in encoded["input_ids"]]}

    return notes.map(rows, batched=True, batch_size=100, remove_columns=notes.column_names, desc="Words")


def split_candidates(stage: MSMNFirstStage, notes: Dataset, top_k: int, trainer: Trainer) -> Candidates:
    """The candidates of the notes of a split, a share of the notes on each process."""
    with trainer.accelerator.split_between_processes(list(notes["text"])) as share:
        part = stage.propose(share, top_k)
    whole = Candidates.concatenate(gather_object([part]))
    return Candidates(whole.codes, whole.indices, whole.scores, notes["note_id"])


def write_candidates(
    trainer: Trainer, dataset: DatasetDict, num_candidates: int, handover: int = 0, corpus: str = "corpus"
) -> dict[str, dict[str, float]]:
    """Write the candidates of each split into `output_dir`. To be called on all processes.

    Args:
        trainer: with the trained model and its tokenizer.
        dataset: split → notes.
        num_candidates: of a note in `{split}_candidates.npz`.
        handover: candidates of a note in `{corpus}_{split}_predtop50.txt`, the published format; 0 for no such file.
        corpus: name in these files' names.

    Returns:
        Split → recall of the candidates, and the ceiling that they set.
    """
    metrics = {}
    stage = MSMNFirstStage(trainer.model, trainer.processing_class, trainer.args.per_device_eval_batch_size)
    folder = Path(trainer.args.output_dir)
    for split, notes in dataset.items():
        candidates = split_candidates(stage, notes, num_candidates, trainer)
        metrics[split] = candidates.candidate_metrics(notes["codes"], RECALL_AT)
        if trainer.is_world_process_zero():
            candidates.save(folder / f"{split}_candidates.npz")
            if handover:
                name = f"{corpus}_{PUBLISHED_SPLITS.get(split, split)}_predtop50.txt"
                write_handover_file(folder / name, candidates.top(handover))
    return metrics
