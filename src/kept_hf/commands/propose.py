"""Propose codes for the notes of a corpus: first stages for `kept-hf rerank`, which also calls this.

    kept-hf propose --corpus codiesp --data_dir path/to/codiesp --output_dir outputs/first-stages \\
        --stages sparse dense classifier fused late=outputs/codiesp-late-interaction

- `sparse`, `dense`: windows of the note against the names of the codes; no label is looked at.
- `classifier`: a linear classifier on the words of the training notes. What it proposes for these notes comes from
  classifiers that did not see them (nor others of the same patient), so that it looks as it will for new notes.
- `fused`: these three, by weights that were tuned on the proposals for training notes.
- `NAME=FOLDER`: proposals that are there, `{split}_proposals.npz` (`Candidates.save`, `train_msmn.py`) or the published
  files `*_train_predtop50.txt`, `*_dev_predtop50.txt`, `*_test_predtop50.txt`; or else a model of `train.py` with
  `--scorer matching` or `--prompt_layout isolated`, or one of `train_msmn.py`, which is asked about all codes.

What is made here lies in `output_dir/NAME/{split}_proposals.npz`. What is there and was made from the same notes with
the same settings is not made again.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from datasets import Dataset
from transformers import AutoConfig, AutoModel, AutoTokenizer, HfArgumentParser

from ..candidates.candidates import Candidates, read_handover_file
from ..candidates.dense import DenseRetriever
from ..candidates.fusion import fuse_weighted, tune_weights
from ..candidates.kept import KeptFirstStage
from ..candidates.msmn import MSMNFirstStage
from ..candidates.out_of_fold import propose_out_of_fold
from ..candidates.sparse import SparseRetriever
from ..candidates.stage_files import (
    digest,
    digest_of_model,
    digest_of_notes,
    digest_of_proposals,
    is_made,
    keep_settings,
)
from ..candidates.text_classifier import TextClassifier
from ..corpora import Corpus
from ..corpora.arguments import CorpusArguments, read_corpus
from ..models.configuration_msmn import MSMNConfig
from ..reports.tables import format_table
from ..reranking import in_code_set
from ..training.weights import PACKAGED_WEIGHTS, weights_path

logger = logging.getLogger("propose")
SINGLE = ("sparse", "dense", "classifier")
STAGES = (*SINGLE, "fused")
PUBLISHED_NAMES = {"train": "train", "validation": "dev", "test": "test"}
TUNING_NOTES = 2_000
DEPTH = 300
"""Candidates of a note at least: what they are fused of, and how deep recall is told."""


def add_retrieval_arguments(parser: argparse.ArgumentParser) -> None:
    """How the stages of this command propose."""
    parser.add_argument("--encoder", default=PACKAGED_WEIGHTS, help="dense: folder or model id of any encoder")
    parser.add_argument("--top_k", type=at_least(1), default=300, help="candidates of a note")
    parser.add_argument(
        "--folds", type=at_least(2), default=5, help="classifier: parts of the training notes, each left out once"
    )


def at_least(lowest: int) -> Callable[[str], int]:
    """A type of arguments: whole numbers from `lowest` on."""

    def number(text: str) -> int:
        if int(text) < lowest:
            raise argparse.ArgumentTypeError(f"{text} is less than {lowest}")
        return int(text)

    return number


def named_stages(parser: argparse.ArgumentParser, option: str, names: Sequence[str]) -> dict[str, str]:
    """Name → folder, or "" for a stage that is made here."""
    stages: dict[str, str] = {}
    for name, _, folder in (asked.partition("=") for asked in names):
        if name in stages:
            parser.error(f"{option}: {name} is there twice; give each stage a name of its own")
        stages[name] = folder
        if not name or (not folder and name not in STAGES):
            parser.error(
                f"{option} {name}: write one of {', '.join(STAGES)}, or NAME=FOLDER, such as msmn=outputs/msmn"
            )
        if folder and name in STAGES:
            parser.error(f"{option} {name}={folder}: {name} is a stage that is made here; choose another name")
    return stages


def read_proposals(folder: str, corpus: Corpus) -> dict[str, Candidates]:
    """Split → the candidates of its notes, in the order of the corpus; nothing where the folder has none at all."""
    found = {}
    for split, notes in corpus.dataset.items():
        note_ids, saved = notes["note_id"], Path(folder, f"{split}_proposals.npz")
        published = sorted(Path(folder).glob(f"*_{PUBLISHED_NAMES[split]}_predtop50.txt"))
        if len(published) > 1 and not saved.exists():
            names = ", ".join(path.name for path in published)
            raise SystemExit(f"{folder} has {len(published)} files for {split}: {names}; leave one of them there.")
        if saved.exists():
            proposals = Candidates.load(saved)
            if proposals.note_ids is None:
                raise SystemExit(f"{saved} has no note_ids; make it with the ids of the notes.")
            proposals = in_code_set(proposals.for_notes(note_ids), corpus.code_set, skip_unknown=True)
        elif published:
            proposals = read_handover_file(published[0], corpus.code_set, note_ids=list(note_ids), skip_unknown=True)
        else:
            continue
        if not proposals.num_candidates.any():
            raise SystemExit(
                f"{folder} has no candidate for {split} that is among the {len(corpus.code_set)} codes of the code "
                "set; pass the --codes that they were proposed from."
            )
        found[split] = proposals
    missing = [split for split in corpus.dataset if split not in found and split != "train"]
    if found and missing:
        raise SystemExit(f"{folder} has no proposals of {', '.join(missing)}: write {missing[0]}_proposals.npz there.")
    return found


class FirstStages:
    """Makes the proposals of the stages that are asked for, and those that they are fused of.

    Args:
        corpus: its notes and codes.
        folder: where a folder for each stage is written.
        arguments: those of `add_retrieval_arguments`.
    """

    def __init__(self, corpus: Corpus, folder: Path, arguments: argparse.Namespace):
        self.corpus, self.folder, self.arguments = corpus, folder, arguments
        self.train, self.seconds = corpus.dataset["train"], {}
        self.inputs = {"notes": digest_of_notes(corpus.dataset), "codes": digest(corpus.code_set.to_dict())}
        self.top_k = max(arguments.top_k, DEPTH)

    def make(self, name: str, folder: str = "") -> dict[str, Candidates]:
        """Split → the proposals of a stage, made or read; of what lies in a folder, if one is given."""
        if folder:
            return read_proposals(folder, self.corpus) or self._by_model(name, folder)
        return self._fused() if name == "fused" else getattr(self, f"_{name}")()

    def _by_model(self, name: str, folder: str) -> dict[str, Candidates]:
        if not Path(folder, "config.json").is_file():
            raise SystemExit(
                f"{name}={folder}: the folder has neither proposals, such as validation_proposals.npz, nor a model."
            )

        def proposals_of() -> Callable[[str, Dataset], Candidates]:
            code_set = self.corpus.code_set
            if AutoConfig.from_pretrained(folder).model_type == MSMNConfig.model_type:
                proposer = MSMNFirstStage.from_pretrained(folder)
            else:
                proposer = KeptFirstStage.from_pretrained(folder, code_set)
            if torch.cuda.is_available():
                proposer.model.to("cuda")
            return lambda split, notes: in_code_set(
                proposer.propose(notes["text"], self.top_k), code_set, skip_unknown=True
            )

        return self._made(name, {"model": digest_of_model(folder)}, proposals_of)

    def _sparse(self) -> dict[str, Candidates]:
        def proposals_of() -> Callable[[str, Dataset], Candidates]:
            retriever = SparseRetriever(self.corpus.code_set, self.train["text"])
            return lambda split, notes: retriever.propose(notes["text"], self.top_k)

        return self._made("sparse", {}, proposals_of)

    def _dense(self) -> dict[str, Candidates]:
        path = weights_path(self.arguments.encoder)

        def proposals_of() -> Callable[[str, Dataset], Candidates]:
            model, tokenizer = (auto.from_pretrained(path) for auto in (AutoModel, AutoTokenizer))
            if torch.cuda.is_available():
                model = model.to("cuda")
            retriever = DenseRetriever(self.corpus.code_set, model, tokenizer)
            return lambda split, notes: retriever.propose(notes["text"], self.top_k)

        return self._made("dense", {"encoder": digest_of_model(str(path))}, proposals_of)

    def _classifier(self) -> dict[str, Candidates]:
        def fitted(texts: Sequence[str], codes: Sequence[Sequence[str]]) -> TextClassifier:
            return TextClassifier(self.corpus.code_set).fit(texts, codes)

        def proposals_of() -> Callable[[str, Dataset], Candidates]:
            texts, codes = self.train["text"][:], self.train["codes"][:]
            classifier = fitted(texts, codes)
            patients = self.train["subject_id"][:] if "subject_id" in self.train.column_names else None

            def propose(split: str, notes: Dataset) -> Candidates:
                if split == "train":
                    return propose_out_of_fold(fitted, texts, codes, self.top_k, patients, self.arguments.folds)
                return classifier.propose(notes["text"], self.top_k)

            return propose

        return self._made("classifier", {"folds": self.arguments.folds}, proposals_of)

    def _fused(self) -> dict[str, Candidates]:
        stages = [self.make(name) for name in SINGLE]
        inputs = [digest_of_proposals(stage[split]) for stage in stages for split in self.corpus.dataset]

        def proposals_of() -> Callable[[str, Dataset], Candidates]:
            tuned_on = range(min(TUNING_NOTES, len(self.train)))
            parts = [stage["train"].take(tuned_on) for stage in stages]
            weights = tune_weights(parts, self.train.select(tuned_on)["codes"][:])
            content = {"stages": SINGLE, "weights": weights, "tuned_on": f"{len(tuned_on)} training notes"}
            (self.folder / "fused" / "weights.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
            return lambda split, notes: fuse_weighted([stage[split] for stage in stages], weights)

        return self._made("fused", {"inputs": inputs}, proposals_of)

    def _made(
        self, name: str, settings: dict, proposals_of: Callable[[], Callable[[str, Dataset], Candidates]]
    ) -> dict[str, Candidates]:
        """Read what is there already; make the rest."""
        settings, propose, found = {**self.inputs, "top_k": self.top_k, **settings}, None, {}
        started = time.monotonic()
        for split, notes in self.corpus.dataset.items():
            path = self.folder / name / f"{split}_proposals.npz"
            if not is_made(path, settings):
                path.parent.mkdir(parents=True, exist_ok=True)
                propose = propose or proposals_of()
                replace(propose(split, notes), note_ids=notes["note_id"][:]).save(path)
                keep_settings(path, settings)
            found[split] = Candidates.load(path)
        if propose is not None:
            logger.info("%s: %.0f s", name, time.monotonic() - started)
        return found


def main(argv: Sequence[str] | None = None) -> None:
    """Make the stages, and say what they find."""
    argv = sys.argv[1:] if argv is None else list(argv)
    parser = HfArgumentParser(
        CorpusArguments, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add_retrieval_arguments(parser)
    parser.add_argument("--stages", nargs="+", default=STAGES, metavar="NAME[=FOLDER]", help="what to make; see above")
    parser.add_argument("--output_dir", default="outputs/first-stages", help="where everything is written")
    arguments = parser.parse_args(argv)
    asked = named_stages(parser, "--stages", arguments.stages)
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    corpus = read_corpus(arguments)
    stages = FirstStages(corpus, Path(arguments.output_dir), arguments)
    made = {name: stages.make(name, folder) for name, folder in asked.items()}
    for split, notes in corpus.dataset.items():
        gold = notes["codes"][:]
        rows = [
            {
                "stage": name,
                **proposals[split].candidate_metrics(gold),
                "map": proposals[split].mean_average_precision(gold),
            }
            for name, proposals in made.items()
            if split in proposals
        ]
        print(f"\n{split}, {len(gold)} notes, {len(corpus.code_set)} codes\n{format_table(rows)}")
    written = [f"{name}/" for name in made if (stages.folder / name).is_dir()]
    print(
        f"\nWrote {', '.join(written)} to {arguments.output_dir}."
        if written
        else "\nAll was there; nothing is written."
    )


if __name__ == "__main__":
    main()
