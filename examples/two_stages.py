"""Two stages for a code set that fits no prompt: a retriever proposes codes, KEPT scores them.

kept-hf train && python examples/two_stages.py
"""

from transformers import AutoModelForSequenceClassification

from kept_hf import KeptProcessor
from kept_hf.candidates.sparse import SparseRetriever
from kept_hf.corpora import load_corpus
from kept_hf.reranking import rerank

MODEL = "outputs/demo"  # made by `kept-hf train`
NUM_NOTES = 10
NUM_CANDIDATES = 20
GROUP_SIZE = 15


def main() -> None:
    """Propose, score again, print the best codes of each note."""
    corpus = load_corpus("demo")
    notes = corpus.dataset["test"].select(range(NUM_NOTES))

    # Words that the names of the codes share with the notes; no training.
    retriever = SparseRetriever(corpus.code_set, corpus.dataset["train"]["text"][:])
    candidates = retriever.propose(notes["text"][:], NUM_CANDIDATES)

    processor = KeptProcessor.from_pretrained(MODEL, code_set=corpus.code_set)
    model = AutoModelForSequenceClassification.from_pretrained(MODEL)
    reranked = rerank(model, processor, notes["text"][:], candidates, GROUP_SIZE)
    for row, note in enumerate(notes):
        print(f"\n{note['note_id']}: gold {', '.join(note['codes'])}")
        print(f"  retriever: {', '.join(candidates.codes_of(row)[:5])}")
        print(f"  KEPT:      {', '.join(reranked.codes_of(row)[:5])}")


if __name__ == "__main__":
    main()
