"""Print the ICD codes of clinical notes, and write them as JSON lines.

kept-hf predict --model outputs/demo --input notes.jsonl     # or .csv, .parquet: columns note_id, text
kept-hf predict --model outputs/demo --input note.txt        # one note
cat note.txt | kept-hf predict --model outputs/demo          # one note

It prints the assigned codes and writes them, together with the 50 best-scored ones of each note.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm
from transformers import pipeline

from ..models.code_set import ICDCodeSet
from ..models.pipeline_icd_coding import ICDCodingPipeline
from ..reports.files import write_predictions
from ..tables.note_files import TABLES, read_notes, table_kind
from .recipe import argument_errors

KEPT_CODES = 50
"""How many of the best-scored codes of a note are written, beside the assigned ones; more if `--top_k` is more."""


def read_input(source: str) -> tuple[list[str], list[str]]:
    """Ids and texts of a table, a text file, a folder of text files or standard input ("-").

    Raises:
        FileNotFoundError: no such file, or a folder without text files.
        ValueError: another kind of file, or what `kept_hf.tables.note_files.read_notes` refuses; the message names the
            line, not its content.
    """
    if source == "-":
        note_ids, texts = ["stdin"], [sys.stdin.read()]
    elif Path(source).is_file() and table_kind(source) is None and Path(source).suffix != ".txt":
        raise ValueError(
            f"pass a table with a note per row ({', '.join(TABLES)}), a .txt file with one note, a folder of .txt "
            "files, or - for standard input."
        )
    else:
        note_ids, texts = read_notes(source, "--input")
    if len(texts) == 1 and not texts[0].strip():
        raise ValueError("the note is empty.")
    return note_ids, texts


def parse_arguments(argv: Sequence[str] | None) -> tuple[argparse.Namespace, list[str], list[str]]:
    """The options, and the ids and texts of the notes; wrong usage ends the program with status 2."""
    parser = argparse.ArgumentParser(
        "kept-hf predict",
        usage="%(prog)s --model FOLDER [--option value ...]",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", required=True, help="folder or model id of a fine-tuned model with its processor")
    parser.add_argument("--input", default="-", help="table, text file, folder of text files, or - for standard input")
    parser.add_argument("--output", default="predictions.jsonl", help="JSON lines to write")
    parser.add_argument(
        "--threshold", type=float, help="assign above this score, a logit (default: the model's tuned one)"
    )
    parser.add_argument("--top_k", type=int, default=5, help="print at least this many of the best codes of a note")
    parser.add_argument("--batch_size", type=int, default=4, help="notes at a time")
    arguments = parser.parse_args(argv)
    try:
        note_ids, texts = read_input(arguments.input)
    except (OSError, ValueError) as error:
        parser.error(str(error) if str(error).startswith("--input") else f"--input {arguments.input}: {error}")
    if not Path(arguments.output).absolute().parent.is_dir():
        parser.error(f"--output {arguments.output}: there is no such folder")
    if Path(arguments.output).exists():
        parser.error(f"--output {arguments.output}: the file exists; pass another one, or delete it")
    if arguments.batch_size < 1:
        parser.error(f"--batch_size {arguments.batch_size} is less than 1")
    if arguments.top_k < 0:
        parser.error(f"--top_k {arguments.top_k} is less than 0")
    return arguments, note_ids, texts


def load_coder(model: str, batch_size: int) -> ICDCodingPipeline:
    """The pipeline of a fine-tuned model.

    Args:
        model: folder or model id.
        batch_size: notes at a time.

    Raises:
        ValueError: there is none, it is another model, or it has no codes of its own.
    """
    expected = "pass the folder, or the id on the Hub, of a model that kept-hf train has fine-tuned"
    try:
        coder = pipeline("icd-coding", model=model, batch_size=batch_size)
    except TypeError as error:  # a tokenizer where the processor is expected
        raise ValueError(f"--model {model} has no KeptProcessor; {expected}.") from error
    except (OSError, ValueError) as error:
        problem = "is no fine-tuned KEPT model" if Path(model).is_dir() else "is no folder, and no model of the Hub"
        raise ValueError(f"--model {model} {problem} that can be loaded; {expected}. ({error})") from error
    if coder.processor.code_set is None:
        raise ValueError(f"--model {model} has no codes of its own; {expected}.")
    return coder


def score_notes(coder: ICDCodingPipeline, texts: Sequence[str], batch_size: int) -> np.ndarray:
    """Scores of shape (notes, codes), in the order of the code set."""
    results = tqdm(coder(text for text in texts), "Notes", len(texts), disable=len(texts) <= batch_size)
    by_code = [{entry["code"]: entry["score"] for entry in result} for result in results]
    return np.array([[note[code] for code in coder.processor.code_set] for note in by_code], dtype=np.float32)


def print_codes(note_id: str, scores: np.ndarray, code_set: ICDCodeSet, threshold: float, top_k: int) -> None:
    """Print a note's assigned codes, marked with a star, and as many more as make up `top_k`."""
    assigned = int((scores > threshold).sum())
    print(f"\n{note_id}: {assigned} code{'' if assigned == 1 else 's'} assigned")
    for index in np.argsort(-scores, kind="stable")[: max(assigned, top_k)]:
        mark = "*" if scores[index] > threshold else " "
        code = code_set.codes[index]
        print(f" {mark} {code:<8} {1 / (1 + np.exp(-scores[index])):6.1%}  {code_set.describe(code)}")


def main(argv: Sequence[str] | None = None) -> None:
    """Read, predict, print, write."""
    arguments, note_ids, texts = parse_arguments(argv)
    with argument_errors("predict"):
        coder = load_coder(arguments.model, arguments.batch_size)
    threshold = coder.model.config.threshold if arguments.threshold is None else arguments.threshold
    code_set = coder.processor.code_set
    scores = score_notes(coder, texts, arguments.batch_size)
    for note_id, note_scores in zip(note_ids, scores, strict=True):
        print_codes(note_id, note_scores, code_set, threshold, arguments.top_k)
    kept = max(KEPT_CODES, arguments.top_k)
    write_predictions(arguments.output, note_ids, scores, None, code_set, threshold, max_codes=kept)
    print(
        f"\n* assigned: above {1 / (1 + np.exp(-threshold)):.1%}. The scores of the assigned and of the {kept} best "
        f"codes of each note are in {arguments.output}."
    )
    print("Not for clinical use.")


if __name__ == "__main__":
    main()
