import itertools
import sys

import numpy as np
import pytest
import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from tiny import randomize
from transformers import BertConfig, BertModel

from kept_hf import ICDCodeSet, KeptLongformerModel
from kept_hf.candidates.dense import DenseRetriever
from kept_hf.candidates.out_of_fold import propose_out_of_fold
from kept_hf.candidates.sparse import SparseRetriever
from kept_hf.candidates.text_classifier import TextClassifier
from kept_hf.candidates.windows import word_windows

NOTES = [
    "The patient was admitted with sepsis, chief complaint fever and cough. Acute kidney failure of the patient.",
    "hospital course stable",
    "the patient was admitted with fever and cough and discharge condition stable and past history of atrial "
    "fibrillation with high blood pressure",
    "",
]
FILLER = "the patient was admitted and treated " * 12


def tiny_bert(tokenizer, seed=0):
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=80,
        hidden_dropout_prob=0.5,
    )
    return randomize(BertModel(config), seed)


@pytest.mark.parametrize(("size", "step"), [(12, 6), (4, 3), (4, 4), (1, 1)])
@pytest.mark.parametrize("length", [1, 3, 4, 5, 12, 13, 25])
def test_windows_leave_out_no_word(size, step, length):
    words = [f"w{number}" for number in range(length)]
    windows = [window.split() for window in word_windows("  ".join(words), size, step)]
    assert set().union(*windows) == set(words)
    assert windows[-1][-1] == words[-1] and windows[0][0] == words[0]
    assert all(len(window) == min(size, length) for window in windows)
    firsts = [int(window[0][1:]) for window in windows]
    assert all(0 < second - first <= step for first, second in itertools.pairwise(firsts))


def test_windows_of_nothing():
    assert word_windows(" \n") == [""]
    for step in (0, 5):
        with pytest.raises(ValueError, match=f"step={step} and size=4"):
            word_windows("a b", size=4, step=step)


@pytest.mark.parametrize("options", [{}, {"analyzer": "word", "ngram_range": (1, 1), "window": 5, "step": 2}])
def test_sparse_scores_are_the_best_cosines(code_set, options):
    candidates = SparseRetriever(code_set, NOTES, **options).propose(NOTES, top_k=6)
    analyzer = {name: options[name] for name in ("analyzer", "ngram_range") if name in options}
    vectorizer = TfidfVectorizer(sublinear_tf=True, **(analyzer or {"analyzer": "char_wb", "ngram_range": (4, 4)}))
    names = {code: [code_set.describe(code), *code_set.synonyms.get(code, ())] for code in code_set}
    vectorizer.fit([*(name for code_names in names.values() for name in code_names), *NOTES])
    scores = candidates.scores_matrix(fill=0)
    for note, text in enumerate(NOTES):
        windows = vectorizer.transform(word_windows(text, options.get("window", 12), options.get("step", 6))).toarray()
        for position, code in enumerate(code_set):
            best = max(float(w @ n) for w in windows for n in vectorizer.transform(names[code]).toarray())
            assert scores[note, position] == pytest.approx(best, abs=1e-5)
            assert (code in candidates.codes_of(note)) == (best > 0)


def test_sparse_finds_names_synonyms_and_the_end_of_notes(code_set):
    retriever = SparseRetriever(code_set)
    notes = [FILLER + "aortocoronary bypass", FILLER + "a htn", "a fall. " + FILLER]
    candidates = retriever.propose(notes, top_k=1)
    assert [candidates.codes_of(note) for note in range(3)] == [["V45.81"], ["401.9"], ["E888.9"]]


def test_notes_tell_which_words_are_common():
    code_set = ICDCodeSet(["A", "B"], {"A": "patient disorder", "B": "gout disorder"})
    note = "patient gout"
    alone = SparseRetriever(code_set, analyzer="word", ngram_range=(1, 1)).propose([note], 2)
    assert alone.scores[0, 0] == pytest.approx(alone.scores[0, 1])
    counted = SparseRetriever(code_set, ["patient seen", "the patient"], "word", (1, 1)).propose([note], 2)
    assert counted.codes_of(0) == ["B", "A"] and counted.scores[0, 0] > counted.scores[0, 1] + 0.05


def test_many_notes_are_as_one(code_set):
    notes = [f"{NOTES[number % 3]} fall {number}" for number in range(70)]
    retriever = SparseRetriever(code_set)
    together, alone = retriever.propose(notes, 3), retriever.propose(notes[66:67], 3)
    assert len(together) == 70 and together.codes_of(66) == alone.codes_of(0)
    assert len(retriever.propose([], 3)) == 0
    with pytest.raises(TypeError, match="pass a list of notes"):
        retriever.propose("fever", 3)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_dense_scores_are_the_best_cosines(code_set, bert_tokenizer, pooling):
    model = tiny_bert(bert_tokenizer)
    retriever = DenseRetriever(code_set, model, bert_tokenizer, pooling, window=5, step=3, batch_size=3)

    @torch.no_grad()
    def vector(text):
        states = model(**bert_tokenizer(text, return_tensors="pt", truncation=True, max_length=64)).last_hidden_state[0]
        pooled = states[0] if pooling == "cls" else states.mean(dim=0)
        return pooled / pooled.norm()

    scores = retriever.propose(NOTES, top_k=6).scores_matrix(fill=np.nan)
    for note, text in enumerate(NOTES):
        windows = [vector(window) for window in word_windows(text, 5, 3)]
        for position, code in enumerate(code_set):
            names = [vector(name) for name in (code_set.describe(code), *code_set.synonyms.get(code, ()))]
            assert scores[note, position] == pytest.approx(max(float(w @ n) for w in windows for n in names), abs=1e-5)


def test_a_longformer_encodes_too(code_set, roberta_tokenizer, tiny_config):
    model = randomize(KeptLongformerModel(tiny_config))
    retriever = DenseRetriever(code_set, model, roberta_tokenizer)
    name = "Acute kidney failure, unspecified"
    assert retriever.propose([name, "stable"], top_k=2).codes_of(0)[0] == "584.9"
    assert retriever.propose([name], top_k=1).scores[0, 0] == pytest.approx(1, abs=1e-5)


def test_vectors_are_units_in_the_order_of_the_texts(code_set, bert_tokenizer):
    retriever = DenseRetriever(code_set, tiny_bert(bert_tokenizer), bert_tokenizer, batch_size=2)
    texts = ["fever and cough of the patient", "fever", "sepsis with fever", "no"]
    vectors = retriever.encode(texts)
    assert torch.allclose(vectors.norm(dim=1), torch.ones(4))
    for text, row in zip(texts, vectors, strict=True):
        assert torch.allclose(retriever.encode([text])[0], row, atol=1e-5)


class Counted(BertModel):
    rows = 0

    def forward(self, input_ids, **inputs):
        type(self).rows += len(input_ids)
        return super().forward(input_ids, **inputs)


def test_vectors_of_names_are_kept_until_something_changes(code_set, bert_tokenizer, tmp_path):
    path = tmp_path / "names.safetensors"

    def rows_encoded(seed=0, codes=code_set, **options):
        model = Counted(tiny_bert(bert_tokenizer).config)
        randomize(model, seed)
        Counted.rows = 0
        retriever = DenseRetriever(codes, model, bert_tokenizer, cache_file=path, **options)
        encoded = Counted.rows
        fresh = DenseRetriever(codes, model, bert_tokenizer, **options)
        assert np.array_equal(retriever.propose(NOTES, 3).scores, fresh.propose(NOTES, 3).scores)
        return encoded

    assert rows_encoded() == 8 and rows_encoded() == 0
    assert rows_encoded(window=5, step=2, batch_size=64) == 0
    assert rows_encoded(seed=1) == 8 and rows_encoded(seed=1) == 0
    assert rows_encoded(seed=1, pooling="cls") == 8
    assert rows_encoded(seed=1, pooling="cls", max_length=4) == 8
    assert rows_encoded(codes=code_set.subset(["401.9", "038.9"])) == 4 and rows_encoded() == 8
    assert rows_encoded(codes=ICDCodeSet(list(code_set), dict.fromkeys(code_set, "fever"))) == 6


def test_a_file_of_something_else_is_not_overwritten(code_set, bert_tokenizer, tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("fever and cough of the patient")
    with pytest.raises(ValueError, match=r"cache_file=.*is something else"):
        DenseRetriever(code_set, tiny_bert(bert_tokenizer), bert_tokenizer, cache_file=path)
    assert path.read_text() == "fever and cough of the patient"


def test_a_damaged_file_of_vectors_is_refused_or_made_again(code_set, bert_tokenizer, tmp_path):
    path, codes = tmp_path / "names.safetensors", code_set.subset(["401.9", "038.9"])
    model = tiny_bert(bert_tokenizer)
    expected = DenseRetriever(codes, model, bert_tokenizer, cache_file=path).propose(NOTES, 2).scores
    whole, generator = path.read_bytes(), np.random.default_rng(0)
    damaged = [whole[:length] for length in generator.integers(0, len(whole), 10)]
    for place in [*range(8), *generator.integers(8, len(whole), 60)]:
        damaged.append(whole[:place] + bytes([whole[place] ^ (1 << generator.integers(8))]) + whole[place + 1 :])
    refused = 0
    for content in damaged:
        path.write_bytes(content)
        try:
            scores = DenseRetriever(codes, model, bert_tokenizer, cache_file=path).propose(NOTES, 2).scores
        except ValueError as error:
            assert "names.safetensors" in str(error) and path.read_bytes() == content
            refused += 1
            continue
        assert np.array_equal(scores, expected)
    assert 10 < refused < len(damaged) - 20


def test_wrong_arguments_of_retrievers(code_set, bert_tokenizer):
    with pytest.raises(TypeError, match="texts is one string; pass a list"):
        SparseRetriever(code_set, "fever")
    with pytest.raises(ValueError, match="batch_size=0 is less than 1"):
        DenseRetriever(code_set, tiny_bert(bert_tokenizer), bert_tokenizer, batch_size=0)
    with pytest.raises(ValueError, match="pooling='max' is unknown; pass one of cls, mean"):
        DenseRetriever(code_set, tiny_bert(bert_tokenizer), bert_tokenizer, pooling="max")


def coded_notes(number=40, seed=0):
    generator = np.random.default_rng(seed)
    words = {"038.9": "sepsis", "584.9": "kidney", "E888.9": "fall", "401.9": "hypertension"}
    notes, codes = [], []
    for _ in range(number):
        chosen = [code for code in words if generator.random() < 0.3]
        noise = generator.choice(["patient", "stable", "seen", "of", "with"], size=4)
        notes.append(" ".join(generator.permutation([*noise, *(words[code] for code in chosen)])))
        codes.append(chosen)
    return notes, codes


def test_the_classifier_learns_codes(code_set):
    notes, codes = coded_notes()
    classifier = TextClassifier(code_set).fit(notes, codes)
    other_notes, gold = coded_notes(seed=1)
    candidates = classifier.propose(other_notes, top_k=6)
    assert candidates.mean_average_precision(gold) > 0.95
    assert (candidates.num_candidates == 4).all(), "codes without a training note are no candidates"


def test_the_classifier_is_a_ridge_regression(code_set):
    notes, codes = coded_notes()
    scores = TextClassifier(code_set, alpha=0.7).fit(notes, codes).propose(notes[:5], 6).scores_matrix(np.nan)
    vectorizer = TfidfVectorizer(sublinear_tf=True)
    features = vectorizer.fit_transform(notes).toarray()
    for position, code in enumerate(code_set):
        labels = np.array([code in note_codes for note_codes in codes], dtype=float)
        if not labels.any():
            assert np.isnan(scores[:, position]).all()
            continue
        gram = features.T @ features + 0.7 * np.eye(features.shape[1])
        weights = np.linalg.solve(gram, features.T @ (labels - labels.mean()))
        assert np.allclose(scores[:, position], features[:5] @ weights + labels.mean(), atol=1e-4)


def test_a_code_listed_twice_and_a_single_code(code_set):
    once, twice = (
        TextClassifier(code_set).fit(["dry cough", "fall"], [codes, []]).propose(["cough"], 6)
        for codes in (["038.9"], ["038.9", "038.9"])
    )
    assert once.codes_of(0) == twice.codes_of(0) == ["038.9"] and np.array_equal(once.scores, twice.scores)


def test_what_cannot_be_learned(code_set):
    classifier = TextClassifier(code_set)
    with pytest.raises(RuntimeError, match=r"call fit\(notes, codes\) first"):
        classifier.propose(["cough"], 3)
    with pytest.raises(ValueError, match="notes has 1 texts and codes 2 lists"):
        classifier.fit(["cough"], [[], []])
    with pytest.raises(ValueError, match="empty for every note"):
        classifier.fit(["cough"], [[]])
    with pytest.raises(KeyError, match="Z99"):
        classifier.fit(["cough"], [["Z99"]])


def test_notes_of_a_group_are_held_out_together(code_set):
    notes, codes = coded_notes(12)
    patients = ["a", "b", "c", "a", "b", "c", "d", "d", "d", "e", "f", "a"]
    seen = []

    class Remembers(TextClassifier):
        def propose(self, texts, top_k):
            seen.append((self.known, tuple(texts)))
            return super().propose(texts, top_k)

    def fit(texts, codes):
        classifier = Remembers(code_set).fit(texts, codes)
        classifier.known = tuple(texts)
        return classifier

    patient_of = {note: [p for other, p in zip(notes, patients, strict=True) if other == note] for note in notes}
    candidates = propose_out_of_fold(fit, notes, codes, 6, groups=patients, folds=4)
    assert len(seen) == 4 and sorted(note for _, held_out in seen for note in held_out) == sorted(notes)
    for known, held_out in seen:
        patients_known, patients_held_out = (
            {p for note in part for p in patient_of[note]} for part in (known, held_out)
        )
        assert not patients_known & patients_held_out
        alone = TextClassifier(code_set).fit(known, [codes[notes.index(note)] for note in known])
        for note, expected in zip(held_out, alone.propose(held_out, 6).indices, strict=True):
            assert np.array_equal(candidates.indices[notes.index(note)][: len(expected)], expected), "in another order"
    assert len(propose_out_of_fold(fit, notes, codes, 6, groups=patients, folds=50)) == 12, "a fold a patient"
    with pytest.raises(ValueError, match="12, 12 and 3"):
        propose_out_of_fold(fit, notes, codes, 6, groups=["a", "b", "c"])
    with pytest.raises(ValueError, match="There are 1 folds"):
        propose_out_of_fold(fit, notes, codes, 6, groups=["a"] * 12)


@pytest.mark.parametrize("kind", [SparseRetriever, TextClassifier])
def test_without_scikit_learn(kind, code_set, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.feature_extraction.text", None)
    with pytest.raises(ImportError, match=r"kept-hf\[retrieval\]"):
        kind(code_set)
