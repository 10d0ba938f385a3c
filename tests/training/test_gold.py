import logging

import numpy as np
import pytest
from datasets import Dataset

from kept_hf import DataCollatorForICDPrompting
from kept_hf.candidates.candidates import Candidates
from kept_hf.candidates.text_classifier import TextClassifier
from kept_hf.corpora import load_corpus
from kept_hf.corpora.selection import select_codes
from kept_hf.models.code_set import ICDCodeSet
from kept_hf.models.processing_kept import KeptProcessor
from kept_hf.models.tokenization_msmn import MSMNTokenizer
from kept_hf.reranking import label_matrix
from kept_hf.training import prompt_rows
from kept_hf.training.gold import respell_gold, restrict_gold
from kept_hf.training.msmn import note_rows
from kept_hf.training.rows import CandidatePrompts
from kept_hf.training.task import EvaluationPrompts

CODE_SET = ICDCodeSet(["I10", "A41.9", "R05"], {"I10": "hypertension", "A41.9": "sepsis", "R05": "cough"})
SPELLINGS = ["A41.9", "a41.9", "A419", " A41.9", "A41.9 ", "a419\n"]
ANY_SPELLING = pytest.mark.parametrize("code", SPELLINGS)
CANDIDATES = Candidates.from_scores([[2.0, 1.0, 0.0]], CODE_SET.codes, 2)


def notes_with(*codes):
    return Dataset.from_dict({"text": ["fever and cough"] * len(codes), "codes": list(codes)})


@pytest.fixture
def processor(bert_tokenizer):
    return KeptProcessor(bert_tokenizer, CODE_SET, max_length=128)


@ANY_SPELLING
@pytest.mark.parametrize("layout", ["joint", "isolated"])
def test_rows_find_gold_codes_in_another_spelling(bert_tokenizer, layout, code, caplog):
    processor = KeptProcessor(bert_tokenizer, CODE_SET, max_length=128, prompt_layout=layout)
    with caplog.at_level(logging.WARNING):
        rows = prompt_rows(notes_with([code]), processor)
        assert DataCollatorForICDPrompting(processor)([*rows])["labels"].tolist() == [[0, 1, 0]]
        sampled = prompt_rows(notes_with([code]), processor, sampled_codes=2)
    assert sum(sampled["labels"][0]) == 1 and not caplog.text
    assert processor(["fever"], gold_codes=[[code]])["labels"] == [[0, 1, 0]]


@ANY_SPELLING
def test_everything_that_matches_gold_codes_finds_them(bert_tokenizer, code):
    assert label_matrix([[code]], CODE_SET.codes).tolist() == [[0, 1, 0]]
    assert CODE_SET.multi_hot([code]) == [0, 1, 0]
    assert CANDIDATES.candidate_recall([[code]]) == 1 and CANDIDATES.mean_average_precision([[code]]) == 0.5
    tokenizer = MSMNTokenizer.from_texts(["fever and cough"], min_count=1)
    assert note_rows(notes_with([code]), tokenizer, CODE_SET)["labels"][:] == [[1]]
    classifier = TextClassifier(CODE_SET).fit(["fever", "a cough"], [[code], ["R05"]])
    assert classifier.propose(["fever"], 1).codes_of(0) == ["A41.9"]
    processor = KeptProcessor(bert_tokenizer, CODE_SET, max_length=128, codes_per_prompt=2)
    assert CandidatePrompts(notes_with([code]), processor, CANDIDATES).labels.tolist() == [[0, 1, 0]]
    assert sum(map(sum, EvaluationPrompts(notes_with([code]), processor).rows["labels"])) == 1


def test_codes_of_a_file_are_found_in_another_spelling(tmp_path):
    corpus = load_corpus("demo", cache_dir=tmp_path)
    first, second = corpus.code_set.codes[:2]
    file = tmp_path / "codes.txt"
    file.write_text(f"{first.replace('.', '').lower()}\n {second}\n")
    assert select_codes(corpus, file).code_set.codes == (first, second)


def test_one_warning_counts_codes_that_are_not_in_the_code_set(processor, caplog):
    notes = notes_with(["I10", "E11.9"], ["A41.9", "E11.9"], ["R05"])
    with caplog.at_level(logging.WARNING):
        rows = prompt_rows(notes, processor)
    assert rows["labels"][:] == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
    assert [record.getMessage() for record in caplog.records] == [
        "2 of 5 gold codes of the notes, 1 different ones such as 'E11.9', are not among the 3 codes of the code set: "
        "they are left out."
    ]


def test_training_notes_of_another_system(processor):
    message = (
        r"notes: 3 of 4 gold codes, such as '401\.9', are not in the code set, and 1 of its 3 codes, such as 'I10', "
        r"have a note; pass a code set of the notes' system in their spelling, or leave the others out with"
    )
    notes = notes_with(["401.9", "038.9"], ["401.9", "R05"])
    with pytest.raises(ValueError, match=message):
        prompt_rows(notes, processor)
    with pytest.raises(ValueError, match=message):
        note_rows(notes, MSMNTokenizer.from_texts(["fever"], min_count=1), CODE_SET)
    assert restrict_gold(notes, CODE_SET)["codes"][:] == [[], ["R05"]]


def test_a_part_of_the_codes_may_be_chosen(processor, caplog):
    notes = notes_with(*([["I10", "A41.9", "R05", *(f"E1{number}.9" for number in range(10))]] * 2))
    assert prompt_rows(notes, processor)["labels"][:] == [[1, 1, 1]] * 2
    assert "20 of 26 gold codes of the notes, 10 different ones" in caplog.text


def test_evaluation_notes_may_have_few_of_the_codes(processor):
    prompts = EvaluationPrompts(notes_with(["I10", "E11.9"]), processor)
    assert prompts.rows["labels"][:] == [[1, 0, 0]]


@pytest.mark.parametrize("codes", [[["I10"], None], ["I10", "I10"], [["I10"], [None]], [[401], [402]]])
def test_codes_that_are_no_list_of_text(processor, codes):
    with pytest.raises(ValueError, match=r"notes, row \d: the column codes is no list of text; write .* \[\] for a"):
        prompt_rows(Dataset.from_dict({"text": ["a", "b"], "codes": codes}), processor)


def test_respelling_changes_nothing_else():
    notes = notes_with(["I10"], ["nan", "a419", "A41.9", "X"], [])
    respelled = respell_gold(notes, CODE_SET)
    assert respelled["codes"][:] == [["I10"], ["A41.9", "X"], []]
    assert respelled.column_names == notes.column_names and respelled.features == notes.features
    assert respell_gold(respelled, CODE_SET) is respelled
    assert np.array_equal(respelled["text"][:], notes["text"][:])
