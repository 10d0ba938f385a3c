"""First stages that need no training, or little: their candidates, and their scores without a second stage.

    python benchmarks/bench_retrieval.py path/to/codiesp

Candidate recall, ceiling and mean average precision over all codes of CodiEsp; then F1 on its rare codes. Evaluated on
the validation notes; weights and thresholds are tuned on one half of them and evaluated on the other, in turn.
"""

from __future__ import annotations

import argparse
import logging
import time

import numpy as np
from provenance import RESULTS, keep, provenance
from transformers import AutoModel, AutoTokenizer

from kept_hf.candidates.candidates import Candidates
from kept_hf.candidates.dense import DenseRetriever
from kept_hf.candidates.fusion import fuse_reciprocal_rank, fuse_weighted, tune_weights
from kept_hf.candidates.sparse import SparseRetriever
from kept_hf.candidates.text_classifier import TextClassifier
from kept_hf.corpora import Corpus, load_corpus
from kept_hf.corpora.selection import select_codes
from kept_hf.metrics import best_micro_f1_threshold, icd_metrics
from kept_hf.reports.tables import format_table
from kept_hf.training.weights import PACKAGED_WEIGHTS, weights_path

KS = (50, 100, 300)
SPARSE, DENSE, CLASSIFIER = "names, sparse", "names, dense", "classifier"


def first_stages(corpus: Corpus, texts: list[str], model: str, depth: int) -> dict[str, tuple[Candidates, float]]:
    """Candidates of each for the validation notes, and seconds."""
    train, notes = corpus.dataset["train"], corpus.dataset["validation"]
    encoder, tokenizer = (auto.from_pretrained(weights_path(model)) for auto in (AutoModel, AutoTokenizer))
    makers = {
        f"{SPARSE}, weights of terms from names only": lambda: SparseRetriever(corpus.code_set),
        SPARSE: lambda: SparseRetriever(corpus.code_set, texts),
        DENSE: lambda: DenseRetriever(corpus.code_set, encoder, tokenizer),
        CLASSIFIER: lambda: TextClassifier(corpus.code_set).fit(train["text"], train["codes"]),
    }
    found = {}
    for name, make in makers.items():
        start = time.perf_counter()
        candidates = make().propose(notes["text"], depth)
        seconds = time.perf_counter() - start
        found[name] = Candidates(candidates.codes, candidates.indices, candidates.scores, notes["note_id"]), seconds
        print(f"{name}: {seconds:.0f} s", flush=True)
    return found


def halves(number: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Positions of the notes to tune on, and of those to evaluate, in turn."""
    even, odd = np.arange(0, number, 2), np.arange(1, number, 2)
    return [(even, odd), (odd, even)]


def with_fused(single: dict[str, Candidates], gold: list[list[str]]) -> tuple[dict[str, list[Candidates]], dict]:
    """The single stages and their fusions, each for the two turns of `halves`; and the weights of both."""
    systems, weights = {name: [candidates] * 2 for name, candidates in single.items()}, {}
    for names in ((SPARSE, DENSE), (SPARSE, CLASSIFIER), (DENSE, CLASSIFIER), (SPARSE, DENSE, CLASSIFIER)):
        parts, label = [single[name] for name in names], " + ".join(names)
        for k in (60, 10):
            systems[f"{label}: reciprocal rank, k = {k}"] = [fuse_reciprocal_rank(parts, k=k)] * 2
        weights[label] = [
            tune_weights([part.take(tune) for part in parts], [gold[note] for note in tune])
            for tune, _ in halves(len(gold))
        ]
        systems[f"{label}: weights"] = [fuse_weighted(parts, turn_weights) for turn_weights in weights[label]]
    return systems, weights


def evaluate_candidates(turns: list[Candidates], gold: list[list[str]], seen: set[str]) -> dict[str, float]:
    """Candidate metrics; recall also of the codes without a training note."""
    parts = [part.take(rows) for part, (_, rows) in zip(turns, halves(len(gold)), strict=True)]
    candidates = Candidates.concatenate(parts).for_notes(turns[0].note_ids)
    unseen = [[code for code in codes if code not in seen] for codes in gold]
    return {
        **candidates.candidate_metrics(gold, KS),
        "map": candidates.mean_average_precision(gold),
        **{f"unseen_recall_at_{k}": candidates.candidate_recall(unseen, k) for k in KS},
    }


def evaluate_assignment(turns: list[Candidates], gold: list[list[str]], corpus: Corpus) -> dict[str, float]:
    """Metrics of all notes, each at the best threshold of the other half."""
    labels = np.array([corpus.code_set.multi_hot(codes) for codes in gold])
    margins = np.empty(labels.shape)
    for candidates, (tune, rows) in zip(turns, halves(len(gold)), strict=True):
        scores = candidates.scores_matrix(fill=-np.inf)
        margins[rows] = scores[rows] - best_micro_f1_threshold(scores[tune], labels[tune])
    metrics = icd_metrics(margins, labels, ks=())
    return {name: metrics[name] for name in ("f1_macro", "f1_macro_per_code", "f1_micro", "map")}


def main(arguments: list[str] | None = None) -> dict:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data_dir", help="CodiEsp in its published layout")
    parser.add_argument("--model", default=PACKAGED_WEIGHTS, help="encoder of the dense retriever")
    parser.add_argument("--output", default=RESULTS / "retrieval.json", help="'none' keeps nothing")
    options = parser.parse_args(arguments)
    logging.getLogger("kept_hf").setLevel(logging.ERROR)
    corpus = load_corpus("codiesp", options.data_dir)
    rare = select_codes(corpus, "rare50")
    texts = corpus.dataset["train"]["text"]
    report = {
        **provenance("benchmarks/bench_retrieval.py", arguments, ["torch", "transformers", "scikit-learn"]),
        "model": options.model,
        "codes": {"all": len(corpus.code_set), "rare50": len(rare.code_set)},
        "notes": {
            name: {s: len(rows) for s, rows in c.dataset.items()} for name, c in (("all", corpus), ("rare50", rare))
        },
    }
    report["command"] = "python benchmarks/bench_retrieval.py path/to/codiesp"
    for name, data, depth in (("all", corpus, max(KS)), ("rare50", rare, len(rare.code_set))):
        gold = list(data.dataset["validation"]["codes"])
        seen = {code for codes in data.dataset["train"]["codes"] for code in codes}
        found = first_stages(data, texts, options.model, depth)
        systems, weights = with_fused({label: candidates for label, (candidates, _) in found.items()}, gold)
        rows = []
        for label, turns in systems.items():
            metrics = (
                evaluate_candidates(turns, gold, seen) if name == "all" else evaluate_assignment(turns, gold, rare)
            )
            rows.append({"system": label, **metrics})
        report[name] = {
            "systems": rows,
            "weights": weights,
            "seconds": {label: seconds for label, (_, seconds) in found.items()},
        }
        print(
            f"\n{name}, {report['codes'][name]} codes, {len(gold)} notes\n{format_table(rows, digits=3)}\n", flush=True
        )
    if options.output != "none":
        keep(report, options.output)
    return report


if __name__ == "__main__":
    main()
