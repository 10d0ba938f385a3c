"""The card of a corpus that was written as a folder of parquet files."""

from __future__ import annotations

from collections.abc import Mapping

from huggingface_hub import DatasetCardData

from ..corpora import Corpus
from ..corpora.export import CODE_SET_FILE
from ..models.publication import CREDENTIALED, RESTRICTED, license_metadata
from ..reports.escaping import markdown_text
from ..reports.tables import markdown_table

_ACCESS = {CREDENTIALED: "Each reader needs access of their own from PhysioNet; the"}


def make_dataset_card(configs: Mapping[str, Corpus]) -> str:
    """README.md of a folder with these configurations; its header makes `load_dataset` understand the folder.

    Nothing of a note gets into it.

    Args:
        configs: configuration → corpus, at least one. The first one is the default, and its card that of the folder.

    Raises:
        ValueError: no configuration.
    """
    if not configs:
        raise ValueError("configs={} is empty; pass at least one configuration.")
    first, card = next((name, corpus.card) for name, corpus in configs.items())
    title, summary, source, license = map(markdown_text, (card.title, card.summary, card.source, card.license))
    columns = [{"column": f"`{name}`", "content": text} for name, text in card.columns.items()]
    return f"""---
{_header(configs).to_yaml()}
---

# {title}

{summary}

**Not for clinical use**: made for research and demonstration; no output of a model trained on it may guide the care or
the billing of a patient.

## Source and licence

{source}

Licence: {license}. Converted by kept-hf.{_not_to_be_shared(card.license)}

## Columns

{markdown_table(columns)}

## Configurations

Number of codes, and of notes per split. `{CODE_SET_FILE}` in a configuration's folder holds its codes in label order.

{markdown_table(_sizes(configs))}

```python
from datasets import load_dataset

dataset = load_dataset("path/of/this/folder", "{first}")
```
"""


def _header(configs: Mapping[str, Corpus]) -> DatasetCardData:
    card = next(iter(configs.values())).card
    entries = []
    for config, corpus in configs.items():
        files = [{"split": split, "path": f"{config}/{split}.parquet"} for split in corpus.dataset]
        entries.append({"config_name": config, "data_files": files, **({} if entries else {"default": True})})
    return DatasetCardData(
        pretty_name=card.title,
        language=[card.language],
        **license_metadata(card.license),
        task_categories=["text-classification"],
        tags=["medical", "icd-coding", "multi-label"],
        configs=entries,
    )


def _sizes(configs: Mapping[str, Corpus]) -> list[dict[str, object]]:
    splits = list(dict.fromkeys(split for corpus in configs.values() for split in corpus.dataset))
    return [
        {
            "configuration": config,
            "codes": len(corpus.code_set),
            **{split: len(corpus.dataset.get(split, ())) for split in splits},
        }
        for config, corpus in configs.items()
    ]


def _not_to_be_shared(license: str) -> str:
    if license not in RESTRICTED:
        return ""
    return (
        f" **Do not share**: this folder holds notes of patients. {_ACCESS.get(license, 'The')} folder must not be "
        "published, nor sent to a service that keeps what it is sent."
    )
