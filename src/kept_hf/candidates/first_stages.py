"""The candidates of first stages for all notes of a corpus, in files that are made once."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from transformers import AutoConfig

from ..corpora import Corpus
from .candidates import Candidates, in_code_set
from .definition import StageContext, default_device
from .handover import PUBLISHED_SPLITS, read_handover_file
from .registry import first_stage, needs_of, trained_stage
from .stage_files import digest, digest_of_model, digest_of_notes, is_made, keep_settings

logger = logging.getLogger(__name__)

DEPTH = 300
"""The least number of candidates of a note: fusion uses so many, and recall is reported up to here."""


class FirstStageError(ValueError):
    """A first stage cannot be made from what is there: a folder without candidates or model, a split without notes."""


def read_candidates(folder: str | Path, corpus: Corpus) -> dict[str, Candidates]:
    """Candidates that were made elsewhere.

    Args:
        folder: with files `{split}_candidates.npz` (`Candidates.save`, with `note_ids`), or the published
            `*_train_predtop50.txt`, `*_dev_predtop50.txt`, `*_test_predtop50.txt`.
        corpus: its notes and codes. Candidates outside its code set are omitted, with a warning.

    Returns:
        Split → the candidates of its notes, in the order of the corpus. Empty if the folder has no such file.

    Raises:
        FirstStageError: only some splits have files (the train split need not); two published files for a split;
            candidates without ids, or none of them in the code set.
    """
    found = {}
    for split, notes in corpus.dataset.items():
        path = _file_of_candidates(Path(folder), split)
        if path is None:
            continue
        if path.suffix == ".npz":
            candidates = Candidates.load(path)
            if candidates.note_ids is None:
                raise FirstStageError(f"{path} has no note_ids; make it with the ids of the notes.")
            candidates = in_code_set(candidates.for_notes(notes["note_id"]), corpus.code_set, skip_unknown=True)
        else:
            candidates = read_handover_file(path, corpus.code_set, note_ids=list(notes["note_id"]), skip_unknown=True)
        if not candidates.num_candidates.any():
            raise FirstStageError(
                f"{folder} has no candidate for {split} that is among the {len(corpus.code_set)} codes of the code "
                "set; pass the codes that they were proposed from."
            )
        found[split] = candidates
    missing = [split for split in corpus.dataset if split not in found and split != "train"]
    if found and missing:
        raise FirstStageError(
            f"{folder} has no candidates of {', '.join(missing)}: write {missing[0]}_candidates.npz there."
        )
    return found


def _file_of_candidates(folder: Path, split: str) -> Path | None:
    saved = folder / f"{split}_candidates.npz"
    if saved.exists():
        return saved
    published = sorted(folder.glob(f"[!.]*_{PUBLISHED_SPLITS[split]}_predtop50.txt"))
    if len(published) > 1:
        names = ", ".join(path.name for path in published)
        raise FirstStageError(f"{folder} has {len(published)} files for {split}: {names}; leave one of them there.")
    return published[0] if published else None


class FirstStages:
    """Makes the candidates of first stages, and of those that they join.

    Candidates of stage NAME are written to `folder/NAME/{split}_candidates.npz`. Files that were made from the same
    notes with the same settings are not made again.

    Args:
        corpus: its notes and codes.
        folder: where a folder for each stage is written.
        top_k: candidates of a note; at least `DEPTH` are written.
        folds: for stages that learn from labels: parts of the training notes, each held out once.
        encoder: folder or model id, for stages that need one.

    Attributes:
        digests: of the notes and codes, for the settings of whatever is made from them.
    """

    def __init__(
        self, corpus: Corpus, folder: str | Path, top_k: int = DEPTH, folds: int = 5, encoder: str | None = None
    ):
        self.corpus, self.folder, self.encoder = corpus, Path(folder), encoder
        self.top_k, self.folds = max(top_k, DEPTH), folds
        self.digests = {"notes": digest_of_notes(corpus.dataset), "codes": digest(corpus.code_set.to_dict())}

    def make(self, name: str, folder: str = "") -> dict[str, Candidates]:
        """The candidates of a stage by split, made or read.

        Args:
            name: a name of [`kept_hf.candidates.registry.FIRST_STAGES`]; with a folder any other name.
            folder: candidates, as for [`read_candidates`], or else a trained model.

        Raises:
            ValueError: an unknown name. [`FirstStageError`]: something that the stage needs is missing.
        """
        if folder:
            return read_candidates(folder, self.corpus) or self._of_model(name, folder)
        stage, needs = first_stage(name), needs_of([name])
        if needs & {"texts", "labels"} and "train" not in self.corpus.dataset:
            raise FirstStageError(
                f"The first stage {name} needs training notes; the splits are {', '.join(self.corpus.dataset)}. Add a "
                "train split."
            )
        if "encoder" in needs and self.encoder is None:
            raise FirstStageError(f"The first stage {name} needs an encoder, but encoder=None; pass a model.")
        parts = {part: self.make(part) for part in stage.joins}
        context = StageContext(self.corpus, self.folder / name, self.top_k, self.folds, self.encoder, parts)
        return self._made(name, stage.settings(context), lambda: stage.prepare(context))

    def _of_model(self, name: str, folder: str) -> dict[str, Candidates]:
        if not Path(folder, "config.json").is_file():
            raise FirstStageError(
                f"{name}={folder}: the folder has neither candidates, such as validation_candidates.npz, nor a model."
            )
        try:
            definition = trained_stage(AutoConfig.from_pretrained(folder).model_type)
        except ValueError as error:
            raise FirstStageError(f"{name}={folder}: {error}") from error

        def prepare() -> Callable[[str], Candidates]:
            stage, splits = definition.load(folder, self.corpus.code_set), self.corpus.dataset
            stage.model.to(default_device())
            return lambda split: in_code_set(
                stage.propose(splits[split]["text"], self.top_k), self.corpus.code_set, skip_unknown=True
            )

        return self._made(name, {"model": digest_of_model(folder)}, prepare)

    def _made(
        self, name: str, settings: Mapping[str, object], prepare: Callable[[], Callable[[str], Candidates]]
    ) -> dict[str, Candidates]:
        """Read the files that are there; make the others."""
        settings, propose, found = {**self.digests, "top_k": self.top_k, **settings}, None, {}
        started = time.monotonic()
        for split, notes in self.corpus.dataset.items():
            path = self.folder / name / f"{split}_candidates.npz"
            if not is_made(path, settings):
                path.parent.mkdir(parents=True, exist_ok=True)
                propose = propose or prepare()
                replace(propose(split), note_ids=notes["note_id"][:]).save(path)
                keep_settings(path, settings)
            found[split] = Candidates.load(path)
        if propose is not None:
            logger.info("%s: %.0f s", name, time.monotonic() - started)
        return found
