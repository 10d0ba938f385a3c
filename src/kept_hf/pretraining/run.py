"""What the end of every pretraining run has in common: the folder, and what is written last."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ..models.whole_file import write_text
from ..training.run import write_results

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def write_run(
    folder: Path,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    results: Mapping[str, object],
    make_card: Callable[..., object],
    draw_pictures: Callable[[Path], None] | None = None,
) -> None:
    """Write what a pretraining run leaves: an ordinary checkpoint, pictures, the card, and last the results.

    A folder with `all_results.json` is a finished run; so those of an earlier one go first.

    Args:
        folder: `output_dir`.
        model: to publish, not the one with the stage's own loss.
        tokenizer: of the model.
        results: content of `all_results.json`, from which the card is made, too.
        make_card: of the stage, with the arguments `folder` and `results`.
        draw_pictures: writes pictures into the folder, which the card shows.
    """
    (folder / "all_results.json").unlink(missing_ok=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if draw_pictures is not None:
        draw_pictures(folder)
    write_text(folder / "README.md", str(make_card(folder, results=results)))
    write_results(folder, results)
