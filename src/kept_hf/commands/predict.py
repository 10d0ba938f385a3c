"""Print the ICD codes of clinical notes, and write them as JSON lines.

kept-hf predict --model outputs/demo --input notes.jsonl     # or .csv, .parquet: columns note_id, text
kept-hf predict --model outputs/demo --input note.txt        # one note
cat note.txt | kept-hf predict --model outputs/demo          # one note

It writes the assigned codes, together with the 50 best-scored ones of each note, and prints them, note by note. Until
all are written they are in OUTPUT.part: a command that was stopped goes on after the last note with --resume.
"""

from __future__ import annotations

import argparse
import io
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, NoReturn

import numpy as np
from tqdm.auto import tqdm
from transformers import pipeline

from ..candidates.stage_files import digest, digest_of_model
from ..models.code_set import ICDCodeSet
from ..models.pipeline_icd_coding import ICDCodingPipeline
from ..reports.escaping import printable
from ..reports.files import prediction_line
from ..reports.unfinished import UnfinishedPredictions
from ..tables.note_files import TABLES, SkippedRows, read_notes, table_kind
from ..training.output_dir import check_output_dir
from ..version import __version__
from .printing import LenientStream
from .recipe import argument_errors

COMMAND = "predict"
MAX_NOTE_CHARS = 1_000_000
"""Far more than a discharge summary has, and tokenized in seconds and some hundred megabytes."""
KEPT_CODES = 50
"""How many of the best-scored codes of a note are written, beside the assigned ones; more if `--top_k` is more."""


def read_input(
    source: str, max_note_chars: int | None = None, skipped: SkippedRows | None = None
) -> tuple[list[str], list[str]]:
    """Ids and texts of a table, a text file, a folder of text files or standard input ("-").

    Args:
        source: what to read.
        max_note_chars, skipped: see [`kept_hf.tables.note_files.read_notes`].

    Raises:
        FileNotFoundError: no such file, or a folder without text files.
        ValueError: another kind of file, or what `kept_hf.tables.note_files.read_notes` refuses; the message names the
            line, not its content.
    """
    if source == "-":
        note_ids, texts = ["stdin"], [_read_stdin(max_note_chars)]
    elif Path(source).is_file() and table_kind(source) is None and Path(source).suffix != ".txt":
        raise ValueError(
            f"--input {source}: pass a table with a note per row ({', '.join(TABLES)}), a .txt file with one note, a "
            "folder of .txt files, or - for standard input."
        )
    else:
        note_ids, texts = read_notes(source, "--input", max_note_chars, skipped)
    if len(texts) == 1 and not texts[0].strip():
        raise ValueError(f"--input {source}: the note is empty.")
    return note_ids, texts


def _read_stdin(max_note_chars: int | None) -> str:
    """The note; never more of it than a note may have is read."""
    if sys.stdin is None:  # it was closed
        return ""
    # Bytes, since the encoding of a terminal need not be that of the note. Four are the widest character's, and three
    # may stand in front.
    most = None if max_note_chars is None else 4 * max_note_chars + 3
    content = sys.stdin.buffer.read(-1 if most is None else most + 1)
    is_too_long = most is not None and len(content) > most
    try:
        text = "" if is_too_long else io.TextIOWrapper(io.BytesIO(content), encoding="utf-8-sig").read()
    except UnicodeDecodeError:
        raise ValueError("--input -: standard input is not UTF-8; convert it.") from None
    if is_too_long or (max_note_chars is not None and len(text) > max_note_chars):
        raise ValueError(f"--input -: the note has more than max_note_chars={max_note_chars:,} characters; shorten it.")
    return text


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The options; wrong usage ends the program with status 2."""
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
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on after the last note of OUTPUT.part, which a stopped command left; all else must be the same",
    )
    parser.add_argument(
        "--skip_bad_lines",
        action="store_true",
        help="leave out rows, lines and files that cannot be used (no JSON, not UTF-8, no text, a repeated note_id, a "
        "note that is too long), and list their numbers at the end; without it they are errors, before anything is "
        "scored",
    )
    parser.add_argument(
        "--max_note_chars",
        type=int,
        default=MAX_NOTE_CHARS,
        help=f"characters that a note may have (default: {MAX_NOTE_CHARS:,}; discharge summaries have some ten "
        "thousand). Of a longer one the model reads its first tokens only, and ten million take a minute and 3 GB to "
        "tokenize",
    )
    arguments = parser.parse_args(argv)
    if arguments.threshold is not None and not math.isfinite(arguments.threshold):
        parser.error(f"--threshold {arguments.threshold} is no finite number")
    for name, lowest in (("batch_size", 1), ("top_k", 0), ("max_note_chars", 1)):
        if getattr(arguments, name) < lowest:
            parser.error(f"--{name} {getattr(arguments, name)} is less than {lowest}")
    return arguments


def open_output(output: str, resume: bool) -> UnfinishedPredictions:
    """The file to write, which no other process writes.

    Raises:
        ValueError: it cannot be written, exists, or was left unfinished; see
            [`kept_hf.reports.unfinished.UnfinishedPredictions`].
    """
    folder = Path(output).absolute().parent
    check_output_dir(folder, f"--output {output}: folder")
    if not folder.exists():
        raise ValueError(f"--output {output}: there is no such folder")
    try:
        return UnfinishedPredictions(output, resume)
    except ValueError as error:
        raise ValueError(f"--output {output}: {error}") from error
    except OSError as error:
        raise ValueError(f"--output {output} cannot be written: {error.strerror}; pass another file") from error


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


def score_notes(coder: ICDCodingPipeline, texts: Sequence[str]) -> Iterator[np.ndarray]:
    """For each note its scores of shape (codes,), in the order of the code set; only some batches are in memory.

    Raises:
        ValueError: a score is no number.
    """
    index_of = {code: index for index, code in enumerate(coder.processor.code_set)}
    for result in coder(text for text in texts):
        scores = np.empty(len(index_of), dtype=np.float32)
        for entry in result:
            scores[index_of[entry["code"]]] = entry["score"]
        if np.isnan(scores).any():
            raise ValueError("the model gives scores that are no numbers (NaN); are its weights damaged?")
        yield scores


def print_codes(
    note_id: str, scores: np.ndarray, code_set: ICDCodeSet, threshold: float, top_k: int, file: IO[str] | None = None
) -> None:
    """Print a note's assigned codes, marked with a star, and as many more as make up `top_k`."""
    assigned = int((scores > threshold).sum())
    print(f"\n{printable(note_id)}: {assigned} code{'' if assigned == 1 else 's'} assigned", file=file)
    for index in np.argsort(-scores, kind="stable")[: max(assigned, top_k)]:
        mark = "*" if scores[index] > threshold else " "
        code = code_set.codes[index]
        probability = 1 / (1 + np.exp(-scores[index]))
        print(f" {mark} {code:<8} {probability:6.1%}  {printable(code_set.describe(code))}", file=file)


def main(argv: Sequence[str] | None = None) -> None:
    """Read, predict, write, print."""
    arguments = parse_arguments(argv)
    skipped = SkippedRows() if arguments.skip_bad_lines else None
    with argument_errors(COMMAND):
        unfinished = open_output(arguments.output, arguments.resume)
    with unfinished:
        with argument_errors(COMMAND):
            note_ids, texts = read_input(arguments.input, arguments.max_note_chars, skipped)
            coder = load_coder(arguments.model, arguments.batch_size)
            threshold = coder.model.config.threshold if arguments.threshold is None else arguments.threshold
            if not math.isfinite(threshold):
                raise ValueError(f"--model {arguments.model} has the threshold {threshold}; pass --threshold")
            kept = max(KEPT_CODES, arguments.top_k)
            try:
                start = unfinished.begin(
                    {
                        "model": digest_of_model(arguments.model),
                        "code set": digest(coder.processor.code_set.to_dict()),
                        "threshold": threshold,
                        "number of written codes": kept,
                        "input": digest(*note_ids, *texts),
                        "version of kept-hf": __version__,
                    },
                    note_ids,
                )
            except (OSError, ValueError) as error:
                raise ValueError(f"--output {arguments.output}: {error}") from error
        predict(arguments, coder, note_ids, texts, threshold, kept, unfinished, start)
    if skipped:
        print(f"--input {arguments.input}: {skipped}.", file=LenientStream(sys.stderr))


def predict(
    arguments: argparse.Namespace,
    coder: ICDCodingPipeline,
    note_ids: Sequence[str],
    texts: Sequence[str],
    threshold: float,
    max_codes: int,
    unfinished: UnfinishedPredictions,
    start: int,
) -> None:
    """Write and print the codes of the notes from number `start` on, then give the file its name.

    Raises:
        SystemExit: the file cannot be written, or a note not be scored (status 1); or the user stopped the command
            (130). A line says what is kept and how to go on.
    """
    code_set, output = coder.processor.code_set, LenientStream(sys.stdout)
    descriptions = [code_set.describe(code) for code in code_set]
    if start:
        print(f"Going on after {start} of {len(texts)} notes.", file=output)
    written = start
    bar = tqdm(
        score_notes(coder, texts[start:]),
        "Notes",
        len(texts),
        initial=start,
        # What is printed note by note shows how far it is, where it is to be seen.
        disable=len(texts) - start <= arguments.batch_size or output.isatty(),
        file=LenientStream(sys.stderr),
    )
    try:
        for note_id, scores in zip(note_ids[start:], bar, strict=True):
            unfinished.write(prediction_line(note_id, scores, code_set.codes, descriptions, threshold, max_codes))
            written += 1
            print_codes(note_id, scores, code_set, threshold, arguments.top_k, output)
            output.flush()
        unfinished.finish()
    except ValueError as error:
        _stop(arguments, str(error), written, len(texts), 1)
    except KeyboardInterrupt:
        _stop(arguments, "stopped", written, len(texts), 130)
    print(
        f"\n* assigned: above {1 / (1 + np.exp(-threshold)):.1%}. The scores of the assigned and of the {max_codes} "
        f"best codes of each note are in {arguments.output}.",
        file=output,
    )
    print("Not for clinical use.", file=output)
    output.flush()


def _stop(arguments: argparse.Namespace, why: str, written: int, notes: int, status: int) -> NoReturn:
    kept = f"; {written} of {notes} notes are in {arguments.output}.part, pass --resume to go on" if written else ""
    print(f"kept-hf {COMMAND}: error: {why}{kept}", file=LenientStream(sys.stderr))
    raise SystemExit(status)


if __name__ == "__main__":
    main()
