"""What reads texts with regular expressions, on texts of 1 MB that are made to be slow.

Call it as `python adversarial.py NAME`.
"""

from __future__ import annotations

import contextlib
import faulthandler
import sys
import tempfile
import types
from collections.abc import Callable
from pathlib import Path

SIZE = 1_000_000
LIMIT = 20
"""Seconds for one text. What is linear takes a tenth of one; what is quadratic takes minutes at least."""

NOTE_PIECES = ("[**", "[** ", "[**]", "**]", "[", "_", "__ ", " ", "\n", "\t \n", "-", "= ", ":\n", "a:\n", "A. ", ".")
NAME_PIECES = ("(", "[", "([", "(]", ")", " ", "nos ", "not elsewhere ", "(A00", "  (A00-B00) ", "_")
CODE_PIECES = ("1", "0", "1.", ".", "1e", "0.0", "A", "E8", "+", " ", ",", ";", "/", "1 1;", "A.")


def texts(pieces: tuple[str, ...]):
    """Each piece repeated, also with an end and a start that keep it from fitting."""
    for piece in pieces:
        repeated = piece * (SIZE // len(piece))
        yield repeated
        yield f"1x{repeated}!"


def each(pieces: tuple[str, ...], *functions: Callable[[str], object]):
    def run():
        for text in texts(pieces):
            for function in functions:
                # It ends the process, even while a regular expression holds the interpreter.
                faulthandler.dump_traceback_later(LIMIT, exit=True)
                with contextlib.suppress(ValueError, KeyError):  # refused is fine
                    function(text)
                faulthandler.cancel_dump_traceback_later()

    return run


def in_file(read: Callable[[Path], object], name: str, content: str = "{}") -> Callable[[str], object]:
    """Reads a text from a file of that name."""

    def function(text: str):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, name)
            path.write_text(content.replace("{}", text), encoding="utf-8")
            return read(path)

    return function


def prompting():
    from kept_hf.models import prompting

    presets = [prompting.get_preset(name) for name in ("kept-50", "kept-rerank")]
    return each(
        NOTE_PIECES,
        prompting.remove_deidentification_tags,
        prompting.select_sections,
        *(lambda text, preset=preset: prompting.clean_note(text, preset) for preset in presets),
        *(lambda text, preset=preset: prompting.shorten_description(text, preset) for preset in presets),
    )


def sentences():
    from kept_hf.pretraining.zero_shot.sentences import background_sentences, split_sentences

    return each(
        NOTE_PIECES,
        split_sentences,
        lambda text: split_sentences(text, keep_initials=True),
        lambda text: background_sentences([text]),
    )


def mentions():
    from kept_hf.knowledge import TermGraph
    from kept_hf.knowledge.mentions import MentionFinder

    def graph(name: str) -> TermGraph:
        return TermGraph.from_tables(["a"], [name], ["preferred"], max_name_length=2 * SIZE)

    return each(NAME_PIECES, MentionFinder(graph("Acute kidney failure")), lambda text: MentionFinder(graph(text)))


def icd10cm():
    from kept_hf.knowledge import icd10cm
    from kept_hf.models import code_set

    def load(title: str):
        listed = types.SimpleNamespace(
            get_all_codes=lambda _: ["A00"],
            is_extended_subcategory=lambda _: False,
            is_valid_item=lambda _: True,
            get_description=lambda _: title,
            get_inclusion_term=lambda _: [title],
            get_parent=lambda code, **_: {"A00": "A00-A09"}.get(code, "1"),
        )
        icd10cm.load_tabular_list = code_set.load_tabular_list = lambda: listed
        return icd10cm.load()

    return each(NAME_PIECES, load)


def hpo():
    from kept_hf.knowledge.hpo import load

    term = "[Term]\nid: HP:1\nname: Fever\nsynonym: "
    pieces = ('"', '\\"', "\\", '"a" EXACT ', '" ', " ", "[a]\n", "\n", "[", "a")
    return each(
        pieces,
        *(in_file(load, "hp.obo", f"{term}{start}{{}}\n") for start in ("", '"', '"a" EXACT ', '"a" EXACT a', "[]\n[")),
    )


def code_systems():
    from kept_hf.models import code_systems

    known = code_systems.Spellings(["A41.9", "401.9", "E888", "0DTJ4ZZ"])
    systems = (code_systems.ICD9_DIAGNOSIS, code_systems.ICD9_PROCEDURE, code_systems.ICD10_DIAGNOSIS)
    return each(
        CODE_PIECES,
        known.find,
        code_systems.is_missing,
        code_systems.lacks_dot,
        lambda text: code_systems.lost_zeros([text + str(number) for number in range(3)], trailing=True),
        lambda text: code_systems.lost_dotted_zeros([text]),
        *(system.dotted for system in systems),
        code_systems.ICD10_PROCEDURE.dotted,
    )


def code_set():
    from kept_hf.models.code_set import ICDCodeSet, add_dot

    return each(
        CODE_PIECES,
        lambda text: ICDCodeSet([text]),
        add_dot,
        in_file(ICDCodeSet.from_csv, "codes.csv", 'code,description\n"{}",fever\n'),
    )


def tokenization_msmn():
    from kept_hf.models.tokenization_msmn import MSMNTokenizer, split_words

    return each(
        (*NOTE_PIECES, "a", "1", "1 ", "1 1"),
        split_words,
        in_file(lambda path: MSMNTokenizer(str(path)), "vocab.txt", "1 1{}x\n[PAD]\n[UNK]\n"),
    )


def note_files():
    from kept_hf.tables.note_files import read_notes

    return each(
        (*CODE_PIECES, "\t", "|", '"', "a ", "a;"), *(in_file(read_notes, f"a{kind}") for kind in (".csv", ".jsonl"))
    )


def csv_tables():
    from kept_hf.tables.csv_tables import stream_table, whole_number

    def read(path: Path):
        return list(stream_table(path.parent, "NOTES", ["TEXT", "ID"], numbers=["ID"], needle="x"))

    return each(
        (*CODE_PIECES, "\t", "|", '"', "a;"),
        whole_number,
        in_file(read, "NOTES.csv"),
        in_file(read, "NOTES.csv", 'ROW,ID,TEXT\n1,{},"x"\n'),
        in_file(read, "NOTES.csv", 'ROW,ID,TEXT\n1,2,"x"\n{},2,"x"\n'),
    )


def code_column():
    from kept_hf.tables.code_column import CodeColumn

    with tempfile.TemporaryDirectory() as folder:
        pass

    def read(text: str):
        Path(folder).mkdir(exist_ok=True)
        Path(folder, "D.csv").write_text('ROW_ID,CODE\n1,"x"\n')
        column = CodeColumn(folder, "D", "CODE", procedure=False, has_categories=True)
        with contextlib.suppress(LookupError):  # the table has another one
            column.dotted(text)
        column.check()

    return each(CODE_PIECES, read)


def codiesp():
    from datasets.exceptions import DatasetGenerationError

    from kept_hf.corpora.codiesp import load

    def read(text: str, kind: str):
        with tempfile.TemporaryDirectory() as folder:
            part = Path(folder, "train")
            (part / "text_files_en").mkdir(parents=True)
            (part / "text_files_en" / "a.txt").write_text("Fever.")
            code, spans = (text, "0 1") if kind == "code" else ("r50.9", text)
            (part / "trainD.tsv").write_text(f"a\t{code}\n")
            (part / "trainX.tsv").write_text(f"a\tDIAGNOSTICO\tr50.9\tFever\t{spans}\n")
            (part / "trainP.tsv").write_text("a\tbw03zzz\n")
            with contextlib.suppress(DatasetGenerationError):
                load(folder, cache_dir=folder)

    pieces = ("1", "A", "1 1;", "1 ", ".")
    return each(pieces, lambda text: read(text, "code"), lambda text: read(text, "spans"))


def own():
    from kept_hf.corpora.own import describe_codes, load, read_codes_file

    def read_note(path: Path):
        load(data_files=[str(path)], cache_dir=str(path.parent))

    table = 'note_id,text,codes\n1,Fever.,"{}"\n2,Cough.,R05\n3,None.,R05\n'
    return each(
        CODE_PIECES,
        lambda text: describe_codes([text], None),
        in_file(read_codes_file, "codes.csv", 'code,description\n"{}",fever\n'),
        in_file(read_note, "notes.csv", table),
    )


def rendering():
    from kept_hf.hub.rendering import settings_text, without_folders

    pieces = ("/", "\\", "=", "a=", "/a", " ", "<", "[", "`")
    return each(pieces, without_folders, lambda text: settings_text({"a": text}, []))


def escaping():
    from kept_hf.reports.escaping import csv_text, markdown_text, printable

    return each(
        ("<", "&", "&a", "&#", "</", "\x1b", "\n", " ", "=", "'", "\u202e", "a"), printable, csv_text, markdown_text
    )


def export():
    from kept_hf.corpora.export import select_configurations, write_parquet_folder

    def refused(text: str):
        write_parquet_folder({text: None}, "out", "")

    # Both look at the name first.
    return each(("a", ".", "-", " ", "é", "/"), refused, lambda text: select_configurations(None, [text]))


CASES = {
    "models.prompting": prompting,
    "pretraining.zero_shot.sentences": sentences,
    "knowledge.mentions": mentions,
    "knowledge.icd10cm": icd10cm,
    "knowledge.hpo": hpo,
    "models.code_systems": code_systems,
    "models.code_set": code_set,
    "models.tokenization_msmn": tokenization_msmn,
    "tables.note_files": note_files,
    "tables.csv_tables": csv_tables,
    "tables.code_column": code_column,
    "corpora.codiesp": codiesp,
    "corpora.own": own,
    "corpora.export": export,
    "reports.escaping": escaping,
    "hub.rendering": rendering,
}
"""Module with regular expressions → what runs it on all texts."""

OTHERS = {
    "models.loading": "patterns of this package on names of parameters",
    "models.conversion_msmn": "names of parameters",
    "training.checkpoints": "names of folders",
}
"""Modules whose regular expressions meet no text of notes, codes files or names."""

if __name__ == "__main__":
    CASES[sys.argv[1]]()()
