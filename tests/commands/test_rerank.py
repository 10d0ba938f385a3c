"""`kept-hf rerank`: its stages, what it makes again, and its figures."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from datasets import DatasetDict
from launching import launch

from kept_hf import KeptProcessor, MSMNConfig, MSMNForICDCoding, MSMNTokenizer
from kept_hf.candidates.candidates import Candidates
from kept_hf.candidates.first_stages import FirstStages
from kept_hf.candidates.handover import write_handover_file
from kept_hf.candidates.kept import KeptFirstStage
from kept_hf.candidates.msmn import MSMNFirstStage
from kept_hf.commands import rerank as rerank_command
from kept_hf.corpora import load_corpus
from kept_hf.corpora.arguments import CorpusArguments
from kept_hf.metrics import best_micro_f1_threshold, icd_metrics
from kept_hf.reports.comparison import Evaluation
from kept_hf.reranking import label_matrix, published_fill, rerank
from kept_hf.training.conversion import convert_to_kept_longformer, converted_to
from kept_hf.training.task import SCORERS

SPLITS = {"train": 24, "validation": 21, "test": 20}
TRAINING = {
    "max_length": 512,
    "attention_window": 16,
    "position_period": 32,
    "max_steps": 2,
    "per_device_train_batch_size": 4,
    "matching_examples": 0,
    "sampled_codes": 4,
    "draws": 1,
    "hard_negatives": 1.0,
    "bf16": "False",
    "use_cpu": "True",
}


def options(values):
    return [part for name, value in values.items() for part in (f"--{name}", str(value))]


@pytest.fixture(scope="module")
def small_corpus(tmp_path_factory):
    """Some notes of the demo."""
    cache = tmp_path_factory.mktemp("corpus")
    corpus = load_corpus("demo", cache_dir=cache)
    splits = {split: corpus.dataset[split].select(range(number)) for split, number in SPLITS.items()}
    return SimpleNamespace(cache=cache, all=corpus, small=replace(corpus, dataset=DatasetDict(splits)))


@pytest.fixture(scope="module")
def folders(small_corpus, tmp_path_factory):
    """Two first stages: one knows something, names its notes, more than there are, in another order; one is published
    files, with a line for each note."""
    named, published = tmp_path_factory.mktemp("named"), tmp_path_factory.mktemp("published")
    corpus = small_corpus.all
    codes = corpus.code_set.codes
    for number, (split, notes) in enumerate(corpus.dataset.items()):
        generator = np.random.default_rng(number)
        labels = label_matrix(notes["codes"], codes)
        scores = generator.normal(size=labels.shape) + 1.5 * labels
        scores[3] = -np.inf  # a note without candidates
        order = generator.permutation(len(notes))
        best = Candidates.from_scores(scores, codes, 12, notes["note_id"][:])
        best.take(order).save(named / f"{split}_candidates.npz")
        name = {"validation": "dev"}.get(split, split)
        random = Candidates.from_scores(generator.random((SPLITS[split], len(codes))), codes, 6)
        write_handover_file(published / f"demo_{name}_predtop50.txt", random)
    return {"named": named, "published": published}


@pytest.fixture(scope="module")
def models(small_corpus, tiny_checkpoint, tmp_path_factory):
    """A model of each kind with random weights."""
    import torch

    found = {}
    for name, scorer in SCORERS.items():
        torch.manual_seed(0)
        converted, tokenizer = convert_to_kept_longformer(str(tiny_checkpoint), 512, 16, 32)
        processor = KeptProcessor(
            tokenizer, small_corpus.all.code_set, max_length=512, prompt_layout=scorer.prompt_layout
        )
        model = converted_to(scorer, converted, **processor.config_overrides())
        for parameter in model.parameters():
            parameter.data.add_(0.3 * torch.randn(parameter.shape))
        found[name] = tmp_path_factory.mktemp(name)
        model.save_pretrained(found[name])
        processor.save_pretrained(found[name])
    return found


@pytest.fixture
def script(monkeypatch, small_corpus):
    """The command on the small corpus: `run(options)`."""
    for part in (rerank_command, rerank_command.train):
        monkeypatch.setattr(part, "read_corpus", lambda arguments: small_corpus.small)
    monkeypatch.setattr(
        rerank_command, "run", lambda *arguments: rerank_command.main(list(map(str, arguments))), raising=False
    )
    return rerank_command


def results_of(folder):
    return json.loads((folder / "all_results.json").read_text())


def test_all_stages_from_one_command(script, folders, tiny_checkpoint, tmp_path, capsys, monkeypatch):
    arguments = ["demo_published", "--first_stages", f"named={folders['named']}", "--top_k", 10, "--group_size", 4]
    arguments += ["--output_dir", tmp_path, "--seeds", 1, 2]
    arguments += [*options(TRAINING), "--model_name_or_path", tiny_checkpoint]
    script.run(*arguments)
    results = results_of(tmp_path)
    assert [row["system"] for row in results["systems"]] == ["named", "KEPT on named", "named + KEPT"]
    assert [row["runs"] for row in results["systems"]] == [1, 2, 2]
    assert "candidate_recall_at_50" not in results["candidates"][0], "there are twelve"
    assert results["evaluated_on"] == "test" and results["thresholds_and_weights_tuned_on"] == "validation"
    for system in ("KEPT on named", "named + KEPT"):
        runs = [run["metrics"]["map"] for run in results["runs"][system]]
        (row,) = (row for row in results["systems"] if row["system"] == system)
        assert row["map"] == pytest.approx(np.mean(runs))
    trained = json.loads((tmp_path / "model-2" / "settings.json").read_text())
    assert trained["codes_per_prompt"] == 4 and trained["seed"] == 2 and len(trained["candidates"]) == 3
    evaluated = json.loads((tmp_path / "model-1" / "all_results.json").read_text())
    direct = next(run["metrics"] for run in results["runs"]["KEPT on named"])
    assert evaluated["test_map"] == pytest.approx(direct["map"], abs=1e-4), "training evaluates on the same candidates"
    printed = capsys.readouterr().out
    assert all(name in printed for name in ("precision_at_15", "train_notes", "ceiling of named", "test split"))
    assert (tmp_path / "f1_by_frequency.png").exists()

    def refuse(*_, **__):
        raise AssertionError("made again")

    with monkeypatch.context() as patch:
        for name in ("rerank", "rerank_all"):
            patch.setattr(script, name, refuse)
        patch.setattr(script.train, "fine_tune", refuse)
        script.run(*arguments)
        assert results_of(tmp_path)["systems"] == results["systems"]
        (tmp_path / "reranked" / "reranked-1-test.npz").unlink()
        with pytest.raises(AssertionError, match="made again"):
            script.run(*arguments)


def test_late_interaction_with_in_batch_negatives(script, folders, tiny_checkpoint, tmp_path):
    """As the recipe codiesp_all trains: it learns from candidates, and its epochs are compared on all codes."""
    arguments = ["codiesp_all", "--corpus", "demo", "--first_stages", f"named={folders['named']}", "--top_k", 10]
    arguments += ["--output_dir", tmp_path, "--seeds", 1, *options(TRAINING), "--model_name_or_path", tiny_checkpoint]
    script.run(*arguments)
    assert [row["system"] for row in results_of(tmp_path)["systems"]] == ["named", "KEPT on named", "named + KEPT"]
    trained = json.loads((tmp_path / "model-1" / "settings.json").read_text())
    assert trained["in_batch_negatives"] and trained["scorer"] == "matching"
    assert [name.split("=")[0] for name in trained["candidates"]] == ["train"]


def test_training_gets_all_options_of_the_corpus():
    options = ["--corpus", "codiesp", "--corpus_options", "language=es", "codes=procedure", "--codes", "top50"]
    options += [
        "--data_dir",
        "a folder",
        "--cache_dir",
        "another",
        "--first_stages",
        "sparse",
        "--learning_rate",
        "0.5",
    ]
    arguments, train_options = rerank_command.parse_arguments(options)
    command = rerank_command.train_command(arguments, train_options, {"train": Path("a.npz")}, 7, Path("out"))
    _, data, training = rerank_command.train.parse_arguments(command)
    for field in fields(CorpusArguments):
        assert getattr(data, field.name) == getattr(arguments, field.name)
    assert (training.seed, training.learning_rate, training.output_dir) == (7, 0.5, "out")


@pytest.mark.parametrize("change", ["option", "recipe", "notes", "weights"])
def test_a_model_is_trained_again_when_its_inputs_changed(
    script,
    small_corpus,
    folders,
    tiny_checkpoint,
    tmp_path,
    monkeypatch,
    change,
):
    weights, recipe, trained = shutil.copytree(tiny_checkpoint, tmp_path / "weights"), tmp_path / "recipe.yaml", []
    recipe.write_text("learning_rate: 0.001\n")

    def train(run, command):
        trained.append(1)
        (tmp_path / "out" / "model-42").mkdir(parents=True, exist_ok=True)

    monkeypatch.setattr(script.train, "prepare", lambda *_: None)
    monkeypatch.setattr(script.train, "fine_tune", train)
    monkeypatch.setattr(script, "score_with_model", lambda *_: {})
    monkeypatch.setattr(script, "write_comparison", lambda *_: None)
    arguments = [recipe, "--first_stages", f"named={folders['named']}", "--output_dir", tmp_path / "out"]
    arguments += ["--model_name_or_path", weights]
    script.run(*arguments)
    script.run(*arguments)
    assert len(trained) == 1
    if change == "option":
        arguments += ["--learning_rate", "0.5"]
    elif change == "recipe":
        recipe.write_text("learning_rate: 0.002\n")
    elif change == "notes":
        dataset = DatasetDict({**small_corpus.small.dataset})
        dataset["train"] = dataset["train"].map(lambda note: {"text": note["text"] + " More."})
        monkeypatch.setattr(script, "read_corpus", lambda _: replace(small_corpus.small, dataset=dataset))
    else:
        file = weights / "config.json"
        file.write_text(file.read_text() + " ")
    script.run(*arguments)
    assert len(trained) == 2


@pytest.mark.parametrize("scorer", SCORERS)
def test_figures_of_a_trained_model(script, small_corpus, folders, models, tmp_path, scorer):
    arguments = ["--first_stages", *(f"{name}={folder}" for name, folder in folders.items()), "--model", models[scorer]]
    arguments += ["--output_dir", tmp_path, "--group_size", 5] + ["--all_codes"] * (scorer == "matching")
    script.run(*arguments)
    results = results_of(tmp_path)
    corpus = small_corpus.small
    codes = corpus.code_set.codes
    expected = {}
    model, processor = (kind.from_pretrained(models[scorer]) for kind in (SCORERS[scorer], KeptProcessor))
    for split in ("validation", "test"):
        notes = corpus.dataset[split]
        first = Candidates.load(folders["named"] / f"{split}_candidates.npz").for_notes(notes["note_id"])
        second = rerank(model, processor, notes["text"], first, 5)
        for name, stage in (("named", first), ("KEPT on named", second)):
            expected[name, split] = stage.scores_matrix(published_fill(stage.scores))
        labels = label_matrix(notes["codes"], codes)
        expected["labels", split] = labels
        if split == "test":
            (row,) = (row for row in results["candidates"] if row["first stage"] == "named")
            assert row == {"first stage": "named", **first.candidate_metrics(notes["codes"])}
    for name in ("named", "KEPT on named"):
        threshold = best_micro_f1_threshold(expected[name, "validation"], expected["labels", "validation"])
        wanted = icd_metrics(expected[name, "test"], expected["labels", "test"], threshold=threshold)
        (row,) = (row for row in results["systems"] if row["system"] == name)
        for metric in ("map", "f1_micro", "f1_macro", "precision_at_8"):
            assert row[metric] == pytest.approx(wanted[metric], abs=1e-4), (name, metric)
    systems = [row["system"] for row in results["systems"]]
    assert systems == ["named", "published", "KEPT on named", "named + KEPT"] + ["KEPT on all codes"] * (
        scorer == "matching"
    )


def test_without_a_test_split_each_half_is_evaluated_with_the_other(script, small_corpus, folders, models, tmp_path):
    dataset = DatasetDict({split: small_corpus.small.dataset[split] for split in ("train", "validation")})
    script.read_corpus = lambda _: replace(small_corpus.small, dataset=dataset)
    named = folders["named"]
    script.run("--first_stages", f"named={named}", "--model", models["prompting"], "--output_dir", tmp_path)
    results = results_of(tmp_path)
    assert results["evaluated_on"] == "validation" and "other half" in results["thresholds_and_weights_tuned_on"]
    assert len(results["runs"]["named + KEPT"][0]["fusion_weights"]) == 2
    assert "auc_micro" not in results["runs"]["named"][0]["metrics"]


def test_weights_are_tuned_on_validation(small_corpus):
    """On validation the second stage knows all, on test the first: the weight has to be that of validation."""
    corpus, found = small_corpus.small, {"knows": {}, "guesses": {}}
    codes = corpus.code_set.codes
    for split in ("validation", "test"):
        labels = label_matrix(corpus.dataset[split]["codes"], codes)
        noise = np.random.default_rng(0).normal(size=labels.shape)
        for name, share in (("knows", 9), ("guesses", 0)):
            found[name][split] = Candidates.from_scores(share * labels + noise, codes, len(codes))
    first = {"validation": found["guesses"]["validation"], "test": found["knows"]["test"]}
    second = {"validation": found["knows"]["validation"], "test": found["guesses"]["test"]}
    evaluation = Evaluation(corpus, "map")
    (weight,) = evaluation.evaluate(first, second)["fusion_weights"]
    assert weight > 0.6
    (weight,) = evaluation.evaluate(second, first)["fusion_weights"]
    assert weight < 0.4


def test_what_changed_is_made_again(script, folders, models, tmp_path):
    model = shutil.copytree(models["prompting"], tmp_path / "model")
    arguments = ["--first_stages", f"named={folders['named']}", "--model", model, "--output_dir", tmp_path / "out"]
    file = tmp_path / "out" / "reranked" / "reranked-0-test.npz"
    times = []
    for change in ([], [], ["--top_k", 5], ["--group_size", 7]):
        script.run(*arguments, *change)
        times.append(file.stat().st_mtime_ns)
    assert times[0] == times[1] < times[2] < times[3]
    assert Candidates.load(file).top_k == 12
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\x00\x00\x00\x3f")
    script.run(*arguments, "--group_size", 7)
    assert file.stat().st_mtime_ns > times[3], "other weights"


def test_a_first_stage_of_msmn_without_its_candidates(small_corpus, tmp_path):
    corpus = small_corpus.small
    tokenizer = MSMNTokenizer.from_texts(corpus.dataset["train"]["text"][:], min_count=1)
    config = MSMNConfig(
        vocab_size=len(tokenizer),
        num_synonyms=1,
        lstm_size=8,
        attention_size=8,
        embedding_size=8,
        id2label=corpus.code_set.id2label,
        label2id=corpus.code_set.label2id,
    )
    model = MSMNForICDCoding(config)
    names = [corpus.code_set.describe(code) for code in corpus.code_set]
    model.set_label_terms(**tokenizer(names, padding=True, return_tensors="pt"))
    for part in (model, tokenizer):
        part.save_pretrained(tmp_path / "msmn")
    first_stages = FirstStages(corpus, tmp_path / "out", top_k=20)
    found = first_stages.make("msmn", str(tmp_path / "msmn"))["test"]
    expected = MSMNFirstStage(model, tokenizer).propose(corpus.dataset["test"]["text"][:], 300)
    assert np.array_equal(found.indices, expected.indices) and found.codes == corpus.code_set.codes


def test_bad_first_stages(script, small_corpus, folders, models, tmp_path, capsys):
    published = shutil.copytree(folders["published"], tmp_path / "published")
    (published / "demo_test_predtop50.txt").write_text("999.99\n" * SPLITS["test"])
    common = ["--model", models["prompting"], "--output_dir", tmp_path / "out"]
    with pytest.raises(SystemExit):
        script.run("--first_stages", f"a={published}", *common)
    assert re.search(r"no candidate for test that is among the \d+ codes", capsys.readouterr().err)
    (published / "other_train_predtop50.txt").write_text("\n")
    with pytest.raises(SystemExit):
        script.run("--first_stages", f"a={published}", *common)
    assert re.search(r"2 files for train: demo_train_.*, other_train_.*leave one", capsys.readouterr().err)
    for names, message in (
        (["sparse", "sparse"], "sparse is there twice"),
        ([f"={published}"], "write one of sparse"),
    ):
        with pytest.raises(SystemExit):
            script.run("--first_stages", *names, *common)
        assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--top_k", 0], "--top_k: 0 is less than 1"),
        (["--group_size", -1], "--group_size: -1 is less than 1"),
        (["--batch_size", 0], "--batch_size: 0 is less than 1"),
        (["--folds", 1], "--folds: 1 is less than 2"),
        (["--seed", 7], "--seed: pass --seeds"),
        (["--seed=7"], "--seed: pass --seeds"),
        (["--model", "/no/such/folder"], "there is no folder /no/such/folder"),
    ],
)
def test_wrong_options_are_noticed_before_any_work(script, folders, options, message, capsys):
    script.read_corpus = None
    with pytest.raises(SystemExit):
        script.run("--first_stages", f"a={folders['named']}", *options)
    printed = capsys.readouterr().err.splitlines()
    assert message in printed[-1] and len(printed) == 2, "the usage is a line"


def test_errors(script, folders, models, tmp_path, capsys):
    with pytest.raises(SystemExit):
        script.run("--first_stages", "msmn")
    expected = "--first_stages msmn: write one of sparse, dense, classifier, prior, fused, or NAME=FOLDER"
    assert expected in capsys.readouterr().err
    with pytest.raises(SystemExit):
        script.run("--first_stages", f"a={folders['named']}", "--model", models["prompting"], "--learning_rate", "1")
    assert "--learning_rate: omit one of them" in capsys.readouterr().err
    for unfinished in ("joint=", f"={models['prompting']}"):
        with pytest.raises(SystemExit):
            script.run("--first_stages", f"a={folders['named']}", "--model", unfinished)
        assert f"--model {unfinished}: write FOLDER, or NAME=FOLDER" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        script.run("--first_stages", f"a={tmp_path}", "--model", models["prompting"])
    assert re.search(r"neither candidates, such as validation_candidates\.npz, nor a model", capsys.readouterr().err)
    shutil.copy(folders["named"] / "test_candidates.npz", tmp_path)
    with pytest.raises(SystemExit):
        script.run("--first_stages", f"a={tmp_path}", "--model", models["prompting"])
    assert re.search(r"no candidates of validation: write validation_candidates\.npz there", capsys.readouterr().err)
    shutil.copy(folders["named"] / "validation_candidates.npz", tmp_path)
    with pytest.raises(SystemExit):
        script.run("--first_stages", f"a={tmp_path}", "--output_dir", tmp_path / "out")
    assert re.search("needs candidates of the train split", capsys.readouterr().err)
    candidates = Candidates.load(tmp_path / "test_candidates.npz")
    replace(candidates, note_ids=None).save(tmp_path / "test_candidates.npz")
    with pytest.raises(SystemExit):
        script.run("--first_stages", f"a={tmp_path}", "--model", models["prompting"])
    assert re.search(r"test_candidates\.npz has no note_ids", capsys.readouterr().err)


def test_a_model_is_a_first_stage(script, small_corpus, folders, models, tmp_path, capsys):
    stages = [
        "--first_stages",
        f"named={folders['named']}",
        f"other={models['matching']}",
        "--model",
        models["prompting"],
    ]
    script.run(*stages, "--output_dir", tmp_path)
    results = results_of(tmp_path)
    assert [row["first stage"] for row in results["candidates"]] == ["named", "other"]
    notes = small_corpus.small.dataset["test"]
    expected = KeptFirstStage.from_pretrained(models["matching"]).propose(notes["text"], 300)
    found = Candidates.load(tmp_path / "first-stages" / "other" / "test_candidates.npz")
    assert np.array_equal(found.indices, expected.indices) and found.note_ids == tuple(notes["note_id"])
    with pytest.raises(SystemExit):
        script.run("--first_stages", f"other={models['prompting']}", "--output_dir", tmp_path)
    assert "prompt_layout='joint'" in capsys.readouterr().err


def test_named_models_are_rows_and_those_of_a_name_are_seeds(script, folders, models, tmp_path, caplog):
    shutil.copytree(models["matching"], tmp_path / "other")
    named = [f"joint={models['prompting']}", f"late={models['matching']}", f"late={tmp_path / 'other'}"]
    common = ["--first_stages", f"named={folders['named']}", "--all_codes"]
    script.run(*common, "--model", *named, "--output_dir", tmp_path / "both")
    both = results_of(tmp_path / "both")
    assert {row["system"]: row["runs"] for row in both["systems"]} == {
        "named": 1,
        "joint on named": 1,
        "named + joint": 1,
        "late on named": 2,
        "named + late": 2,
        "late on all codes": 2,
    }
    assert "asks by prompts and scores the candidates only" in caplog.text
    script.run(*common, "--model", models["matching"], "--output_dir", tmp_path / "one")
    alone = results_of(tmp_path / "one")["runs"]
    assert [alone["KEPT on all codes"][0]] * 2 == both["runs"]["late on all codes"]
    assert alone["named + KEPT"][0] == both["runs"]["named + late"][1]
    script.run(*common[:2], "--model", models["prompting"], "--output_dir", tmp_path / "joint")
    assert results_of(tmp_path / "joint")["runs"]["KEPT on named"] == both["runs"]["joint on named"]


def test_two_processes_train_and_predict(small_corpus, folders, tiny_checkpoint, tmp_path):
    arguments = ["demo_published", "--first_stages", f"named={folders['named']}", "--top_k", "4"]
    arguments += ["--cache_dir", str(small_corpus.cache), "--output_dir", str(tmp_path), *options(TRAINING)]
    arguments += ["--model_name_or_path", str(tiny_checkpoint)]
    launch("-m", "kept_hf.commands.rerank", *arguments, processes=2)
    assert json.loads((tmp_path / "model-42" / "settings.json").read_text())["world_size"] == 2
    notes = small_corpus.all.dataset["test"]
    first = Candidates.load(folders["named"] / "test_candidates.npz").for_notes(notes["note_id"]).top(4)
    path = tmp_path / "model-42"
    model, processor = (kind.from_pretrained(path) for kind in (SCORERS["prompting"], KeptProcessor))
    expected = rerank(model, processor, notes["text"], first)
    found = Candidates.load(tmp_path / "reranked" / "reranked-42-test.npz")
    assert np.array_equal(found.indices, expected.indices) and found.note_ids == expected.note_ids
    assert np.allclose(found.scores, expected.scores, atol=1e-5)
