"""Print the ICD codes of clinical notes, and write them as JSON lines.

kept-hf predict --model outputs/demo --input notes.jsonl     # a JSON object per line: note_id, text
kept-hf predict --model outputs/demo --input note.txt        # one note
cat note.txt | kept-hf predict --model outputs/demo          # one note
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm
from transformers import pipeline

from ..reports.files import write_predictions


def read_notes(source: str) -> tuple[list[str], list[str]]:
    """Ids and texts of a `.jsonl` file, a text file or standard input ("-").

    Raises:
        ValueError: another kind of file, no notes, an id that occurs twice, or a line that is no JSON object with a
            text; the message names the line, not its content.
    """
    path = Path(source)
    if source == "-" or path.suffix == ".txt":
        text = sys.stdin.read() if source == "-" else path.read_text(encoding="utf-8-sig")
        if not text.strip():
            raise ValueError("the note is empty.")
        return ["stdin" if source == "-" else path.stem], [text]
    if path.suffix != ".jsonl":
        raise ValueError("pass a .jsonl file with a note per line, a .txt file with one note, or - for standard input.")
    note_ids, texts, seen = [], [], set()
    with open(path, encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                note = json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"{path}, line {number} is no JSON: {error.msg}.") from None
            if not isinstance(note, dict) or not isinstance(note.get("text"), str):
                raise ValueError(f'{path}, line {number}: expected {{"note_id": ..., "text": "..."}}.')
            note_ids.append(str(note.get("note_id", f"line {number}")))
            texts.append(note["text"])
            if note_ids[-1] in seen:
                raise ValueError(f"{path}, line {number}: the note_id has occurred before.")
            seen.add(note_ids[-1])
    if not texts:
        raise ValueError(f"{path} holds no notes.")
    return note_ids, texts


def main(argv: Sequence[str] | None = None) -> None:
    """Read, predict, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="folder or model id of a fine-tuned model with its processor")
    parser.add_argument("--input", default="-", help="notes.jsonl, a text file, or - for standard input")
    parser.add_argument("--output", default="predictions.jsonl", help="JSON lines to write")
    parser.add_argument(
        "--threshold", type=float, help="assign above this score, a logit (default: the model's tuned one)"
    )
    parser.add_argument("--top_k", type=int, default=5, help="also print this many best codes that are not assigned")
    parser.add_argument("--batch_size", type=int, default=4, help="notes at a time")
    arguments = parser.parse_args(argv)
    try:
        note_ids, texts = read_notes(arguments.input)
    except (OSError, ValueError) as error:
        parser.error(f"--input {arguments.input}: {error}")
    if not Path(arguments.output).absolute().parent.is_dir():
        parser.error(f"--output {arguments.output}: there is no such folder")
    if Path(arguments.output).exists():
        parser.error(f"--output {arguments.output}: the file exists; pass another one, or delete it")
    if arguments.batch_size < 1:
        parser.error(f"--batch_size {arguments.batch_size} is less than 1")
    coder = pipeline("icd-coding", model=arguments.model, batch_size=arguments.batch_size)
    threshold = coder.model.config.threshold if arguments.threshold is None else arguments.threshold
    code_set = coder.processor.code_set

    results = tqdm(coder(text for text in texts), "Notes", len(texts), disable=len(texts) <= arguments.batch_size)
    by_code = [{row["code"]: row["score"] for row in result} for result in results]
    scores = np.array([[row[code] for code in code_set] for row in by_code], dtype=np.float32)
    for note_id, row in zip(note_ids, scores, strict=True):
        assigned = int((row > threshold).sum())
        print(f"\n{note_id}: {assigned} code{'' if assigned == 1 else 's'} assigned")
        for index in np.argsort(-row, kind="stable")[: max(assigned, arguments.top_k)]:
            mark = "*" if row[index] > threshold else " "
            code = code_set.codes[index]
            print(f" {mark} {code:<8} {1 / (1 + np.exp(-row[index])):6.1%}  {code_set.describe(code)}")
    write_predictions(arguments.output, note_ids, scores, None, code_set, threshold, max_codes=None)
    print(f"\n* assigned: above {1 / (1 + np.exp(-threshold)):.1%}. All scores are in {arguments.output}.")
    print("Not for clinical use.")


if __name__ == "__main__":
    main()
