"""The training command of MSMN, with tiny settings, within the test's process."""

import json
import re
import shutil
import sys

import numpy as np
import pytest
import torch
import yaml
from hub_server import HubServer
from launching import launch
from pretraining_runs import losses, read, refusal, runner, script
from processes import run_program
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from kept_hf import ICDCodeSet, MSMNConfig, MSMNForICDCoding, MSMNTokenizer
from kept_hf.candidates.candidates import Candidates
from kept_hf.candidates.handover import read_handover_file
from kept_hf.candidates.msmn import MSMNFirstStage
from kept_hf.corpora import load_corpus
from kept_hf.hub.model_card import make_model_card
from kept_hf.training import msmn
from kept_hf.training.collators import DataCollatorForMSMN

CODES = ("401.9", "428.0", "038.9", "584.9", "486")
TINY = {
    "lstm_size": 8,
    "attention_size": 8,
    "embedding_size": 6,
    "num_lstm_layers": 1,
    "num_synonyms": 2,
    "word_epochs": 1,
    "max_words": 60,
    "max_steps": 4,
    "eval_strategy": "steps",
    "save_strategy": "steps",
    "eval_steps": 2,
    "save_steps": 2,
    "save_total_limit": 5,  # steps so short that the newest checkpoint cannot be told by its time
    "logging_steps": 1,
    "metric_for_best_model": "precision_at_5",
    "per_device_train_batch_size": 4,
    "per_device_eval_batch_size": 64,
    "bf16": "False",
    "use_cpu": "True",
    "num_candidates": 4,
    "handover": 3,
}


@pytest.fixture(scope="module")
def module():
    with script("train_msmn") as example:
        yield example


@pytest.fixture(scope="module")
def run(module, tmp_path_factory):
    """A function that runs the command with tiny settings, on five codes of the demo."""
    folder = tmp_path_factory.mktemp("settings")
    codes = folder / "codes.txt"
    codes.write_text("\n".join(CODES) + "\n")
    recipe = folder / "msmn.yaml"
    values = {"corpus": "demo", "codes": str(codes), "cache_dir": str(folder / "cache"), **TINY}
    recipe.write_text(yaml.safe_dump(values))
    return runner(module, str(recipe))


@pytest.fixture(scope="module")
def trained(run, tmp_path_factory):
    """The folder of a run, and what it printed."""
    folder = tmp_path_factory.mktemp("run")
    return folder, run("--output_dir", folder)


@pytest.fixture(scope="module")
def dataset(run, tmp_path_factory):
    """The demo's notes that carry one of the five codes."""
    rows = load_corpus("demo", cache_dir=tmp_path_factory.mktemp("cache")).dataset
    rows = rows.map(lambda row: {**row, "codes": [code for code in row["codes"] if code in CODES]})
    return rows.filter(lambda row: len(row["codes"]) > 0)


def test_it_writes_model_report_and_candidates(trained, dataset):
    folder, printed = trained
    results, code_set = read(folder), ICDCodeSet.from_json(folder / "code_set.json")
    assert code_set.codes == CODES
    assert results["evaluated_on"] == "test" and results["codes"] == 5 and results["world_size"] == 1
    for name in ("f1_macro", "f1_macro_per_code", "f1_micro", "auc_micro", "map", "precision_at_5"):
        assert 0 <= results[f"test_{name}"] <= 1
    for name in ("predictions.jsonl", "per_code.csv", "precision_recall.png", "f1_by_frequency.png", "settings.json"):
        assert (folder / name).stat().st_size > 0
    assert json.loads((folder / "config.json").read_text())["threshold"] == results["threshold"]
    assert "this model" in printed and "F1 by how often" in printed and "Candidates" in printed
    for split, published in (("train", "train"), ("validation", "dev"), ("test", "test")):
        proposals = Candidates.load(folder / f"{split}_candidates.npz")
        assert proposals.codes == CODES and proposals.top_k == 4
        assert proposals.note_ids == tuple(dataset[split]["note_id"])
        handed = read_handover_file(
            folder / f"demo_{published}_predtop50.txt", code_set, note_ids=dataset[split]["note_id"]
        )
        assert [handed.codes_of(row) for row in range(len(handed))] == [
            proposals.codes_of(row)[:3] for row in range(len(proposals))
        ]


def test_predictions_and_candidates_are_the_saved_model_s(trained, dataset):
    folder, _ = trained
    proposer = MSMNFirstStage.from_pretrained(folder)
    notes, proposals = dataset["test"], Candidates.load(folder / "test_candidates.npz")
    scores = np.concatenate([proposer.scores([text]) for text in notes["text"]])  # each alone, no padding
    order = np.argsort(-scores, axis=1, kind="stable")
    found = np.take_along_axis(scores, proposals.indices, axis=1)
    assert np.abs(found - proposals.scores).max() < 1e-5
    assert np.abs(found - np.take_along_axis(scores, order[:, :4], axis=1)).max() < 1e-5
    lines = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    assert [line["note_id"] for line in lines] == list(notes["note_id"])
    for line, row, codes in zip(lines, scores, notes["codes"], strict=True):
        assert {entry["code"]: entry["score"] for entry in line["codes"]} == pytest.approx(
            dict(zip(CODES, row.tolist(), strict=True)), abs=1e-5
        )
        assert {entry["code"] for entry in line["codes"] if entry["gold"]} == set(codes)


def test_words_and_terms(trained, dataset):
    folder, _ = trained
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForSequenceClassification.from_pretrained(folder)
    assert tokenizer.get_vocab() == MSMNTokenizer.from_texts(dataset["train"]["text"]).get_vocab()
    assert tokenizer.model_max_length == model.config.max_words == 60
    table = ICDCodeSet.from_json(folder / "code_set.json").synonym_table(2)
    expected = tokenizer([name for names in table for name in names], padding=True, return_tensors="pt")
    assert torch.equal(model.term_input_ids, expected.input_ids)


def test_training_begins_with_the_word_vectors(run, tmp_path, dataset):
    words = MSMNTokenizer.from_texts(dataset["train"]["text"])
    word = words.convert_ids_to_tokens(2)
    (tmp_path / "vectors.txt").write_text(f"{word} 9 8 7 6 5 4\n")
    run("--output_dir", tmp_path / "run", "--word_vectors", tmp_path / "vectors.txt", "--learning_rate", 0)
    weight = load_file(tmp_path / "run" / "model.safetensors")["word_embedding.weight"]
    assert weight[2].tolist() == [9, 8, 7, 6, 5, 4]
    assert not (tmp_path / "run" / "word_vectors.txt").exists()


def test_terms_of_a_graph(run, tmp_path, dataset):
    name = " ".join(MSMNTokenizer.from_texts(dataset["train"]["text"]).convert_ids_to_tokens([5, 9, 3]))
    (tmp_path / "terms.csv").write_text(f"concept_id,name,kind,parent_id\n486,{name},synonym,\n")
    options = ("--terms", "csv", "--csv_file", tmp_path / "terms.csv", "--num_synonyms", 8, "--num_candidates", 0)
    run("--output_dir", tmp_path / "run", *options, "--handover", 0, "--max_steps", 2)
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "run")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "run")
    rows = zip(model.term_input_ids, model.term_attention_mask, strict=True)
    terms = [tokenizer.decode(ids[mask == 1]) for ids, mask in rows]
    assert [place // 8 for place, term in enumerate(terms) if term == name][:1] == [CODES.index("486")]
    assert not list((tmp_path / "run").glob("*candidates*"))


def test_a_stopped_run_goes_on(run, trained, tmp_path, capsys):
    folder = tmp_path / "run"
    shutil.copytree(trained[0], folder)
    shutil.rmtree(folder / "checkpoint-4")
    (folder / "word_vectors.txt").unlink()
    run("--output_dir", folder)
    assert losses(folder, 4) == pytest.approx(losses(trained[0], 4), rel=1e-5)
    assert read(folder)["test_auc_micro"] == pytest.approx(read(trained[0])["test_auc_micro"], abs=1e-6)
    assert not (folder / "word_vectors.txt").exists()
    assert "learning_rate" in refusal(run, capsys, "--output_dir", folder, "--learning_rate", 0.5)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--corpus", "mimic9"), "codiesp"),
        (("--codes", "rare51"), "rare50"),
        (("--threshold_metric", "f1"), "f1_micro, f1_macro"),
        (("--attention_size", "7"), "attention_size=7"),
        (("--terms", "umsl"), "umls"),
        (("--handover", "5"), "handover=5 is more than num_candidates=4"),
        (("--num_candidates", "-1"), "num_candidates=-1"),
        (("--corpus_options", "seed"), "name=value"),
        (("--metric_for_best_model", "precision_at_8"), "precision_at_5, recall_at_5, f1_at_5, map"),
        (("--word_vectors", "nope"), "nope"),
        (("--output_dir", __file__), "is a file; pass a folder"),
        (("--label_smoothing_factor", "0.1"), "label_smoothing_factor=0.1 would replace"),
    ],
)
def test_it_refuses(run, tmp_path, capsys, options, expected):
    assert expected in refusal(run, capsys, "--output_dir", tmp_path / "run", *options)


def test_word_vectors_of_another_width(run, tmp_path, capsys):
    (tmp_path / "vectors.txt").write_text("fever 0.5 1 2\n")
    message = refusal(run, capsys, "--output_dir", tmp_path / "run", "--word_vectors", tmp_path / "vectors.txt")
    assert "vectors of 3 numbers, embedding_size is 6; pass --embedding_size 3" in message


def test_published_recipe(module):
    path = "msmn_mimic3"
    model, data, training = module.parse_arguments([path, "--use_cpu", "True", "--bf16", "False"])
    config = MSMNConfig()
    of_the_model = {name: value for name, value in vars(model).items() if name not in module.NOT_OF_THE_MODEL}
    assert of_the_model == {name: getattr(config, name) for name in of_the_model}
    assert not model.initialize_from_names
    assert (training.learning_rate, training.weight_decay, training.max_grad_norm) == (5e-4, 0.01, 1.0)
    assert (training.num_train_epochs, training.per_device_train_batch_size) == (20, 16)
    assert training.metric_for_best_model == "precision_at_8" and data.handover == data.num_candidates == 300


@pytest.fixture
def proposer():
    torch.manual_seed(0)
    tokenizer = MSMNTokenizer.from_texts(["fever and cough with sepsis"], min_count=1)
    sizes = {"lstm_size": 4, "attention_size": 4, "embedding_size": 4}
    config = MSMNConfig(vocab_size=len(tokenizer), num_synonyms=1, max_words=5, num_labels=3, **sizes)
    model = MSMNForICDCoding(config)
    model.set_label_terms(**tokenizer(["fever", "cough", "sepsis"], padding=True, return_tensors="pt"))
    return MSMNFirstStage(model, tokenizer, batch_size=2)


def test_a_proposer_sorts_the_model_s_scores(proposer):
    notes = ["sepsis and fever " * 3, "", "cough", "fever with cough", "with"]
    proposer.model.train()  # it must not propose with dropout
    proposals = proposer.propose(notes, top_k=2)
    proposer.model.eval()
    for row, note in enumerate(notes):
        inputs = proposer.tokenizer(note, return_tensors="pt")
        expected = proposer.model(**inputs).logits[0]
        best = expected.argsort(descending=True)[:2]
        assert proposals.indices[row].tolist() == best.tolist()
        assert np.abs(proposals.scores[row] - expected[best].detach().numpy()).max() < 1e-5
    assert len(proposer.propose([], top_k=2)) == 0
    assert proposer.propose(notes, top_k=9).top_k == 3


def test_a_proposer_refuses(proposer):
    with pytest.raises(TypeError, match="one string"):
        proposer.propose("fever", top_k=2)
    with pytest.raises(ValueError, match="top_k=0"):
        proposer.propose(["fever"], top_k=0)
    with pytest.raises(ValueError, match="batch_size=0"):
        MSMNFirstStage(proposer.model, proposer.tokenizer, batch_size=0)
    with pytest.raises(ValueError, match="tokenizer has 3 words"):
        MSMNFirstStage(proposer.model, MSMNTokenizer.from_texts(["fever"], min_count=1))


def test_collator_writes_out_the_labels(proposer):
    collate = DataCollatorForMSMN(proposer.tokenizer, 3)
    rows = [{**proposer.tokenizer(text), "labels": labels} for text, labels in (("fever", [2, 0]), ("a cough", []))]
    batch = collate(rows)
    assert batch["labels"].tolist() == [[1, 0, 1], [0, 0, 0]]
    assert batch["attention_mask"].tolist() == [[1, 0], [1, 1]] and set(batch) == {*rows[0]}
    with pytest.raises(ValueError, match="labels has 3"):
        collate([{**rows[0], "labels": [3]}])
    with pytest.raises(ValueError, match="labels has -1"):
        collate([{**rows[0], "labels": [-1]}])


def test_it_is_published_with_a_card_whose_snippet_runs(trained, tmp_path):
    folder, _ = trained
    program = "from kept_hf.hub.push import push_model; import sys; print(push_model(sys.argv[1], 'your-name/msmn'))"
    with HubServer(tokens={"token": "your-name"}) as hub:
        run_program([sys.executable, "-c", program, folder], env=hub.environment(tmp_path / "writer", "token"))
        files = hub.repos["model", "your-name/msmn"].files()
        card = files["README.md"].decode()
        snippet = re.search(r"```python\n(.*?)```", card, re.S)[1]
        environment = hub.environment(tmp_path / "reader", "token")
        printed = run_program([sys.executable, "-c", snippet], env=environment).stdout
    assert [line.split()[0] for line in printed.splitlines()] and set(printed.split()) & set(CODES) == set(CODES)
    wanted = {"README.md", "config.json", "model.safetensors", "vocab.txt", "code_set.json", "modeling_msmn.py"}
    assert wanted <= set(files)
    assert not [name for name in files if name.endswith((".npz", ".jsonl", ".csv", ".pt")) or "word_vectors" in name]
    assert "Multiple Synonyms Matching Network" in card and "longformer" not in card.lower().split("# msmn")[0]
    assert "apache-2.0: that of the data." in " ".join(card.split())
    assert str(folder) not in card and "`num_synonyms` 2" in card and "MIMIC" not in card
    results = read(folder)
    assert f"{100 * results['test_f1_micro']:.1f}" in card


def test_the_card_of_given_word_vectors(trained, tmp_path):
    folder = shutil.copytree(trained[0], tmp_path / "run")
    results = read(folder)
    results["settings"]["word_vectors"] = "/home/jane doe/vectors.txt"
    (folder / "all_results.json").write_text(json.dumps(results))
    card = make_model_card(folder, "me/msmn")
    text = " ".join(card.text.split())
    assert "Its initial word vectors: vectors.txt." in text and "jane" not in str(card)
    assert card.data.license == "unknown", "nobody said what the vectors may be used for"
    del results["settings"]["lstm_size"]
    (folder / "all_results.json").write_text(json.dumps(results))
    with pytest.raises(ValueError, match=r"no 'settings\.lstm_size', so it is of an older version"):
        make_model_card(folder)


def test_two_processes_train_and_propose(trained, dataset, tmp_path):
    recipe = json.loads((trained[0] / "settings.json").read_text())
    options = {**TINY, **{name: recipe[name] for name in ("corpus", "codes", "cache_dir")}}
    options["initialize_from_names"] = "True"
    arguments = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    launch("-m", "kept_hf.commands.train_msmn", *arguments, "--output_dir", str(tmp_path), processes=2)
    results = read(tmp_path)
    assert results["world_size"] == 2 and results["test_f1_micro"] >= 0
    expected = MSMNFirstStage.from_pretrained(tmp_path).propose(dataset["test"]["text"], top_k=4)
    found = Candidates.load(tmp_path / "test_candidates.npz")
    assert np.array_equal(found.indices, expected.indices) and found.note_ids == tuple(dataset["test"]["note_id"])
    assert np.abs(found.scores - expected.scores).max() < 1e-5


def test_it_is_initialized_from_names_if_asked(run, dataset, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(
        msmn, "initialize_from_names", lambda model, ids, mask, mean_logit: seen.append((ids, mean_logit))
    )
    run("--output_dir", tmp_path / "with", "--initialize_from_names", "True", "--max_steps", "2")
    ((ids, mean_logit),) = seen
    share = np.mean([len(codes) / len(CODES) for codes in dataset["train"]["codes"]])
    assert mean_logit == pytest.approx(np.log(share / (1 - share)))
    assert len(ids) == msmn.INITIALIZATION_NOTES
