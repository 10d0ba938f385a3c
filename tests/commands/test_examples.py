"""Every example is launched as the README launches it, with tiny settings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from launching import CODES, ROOT, launch, logged_losses

REPORT = (
    "all_results.json",
    "code_set.json",
    "config.json",
    "f1_by_frequency.png",
    "model.safetensors",
    "per_code.csv",
    "precision_recall.png",
    "predictions.jsonl",
    "processor_config.json",
    "settings.json",
    "tokenizer.json",
)


@pytest.fixture(scope="module")
def trained(train_arguments, tmp_path_factory) -> tuple[Path, str]:
    """The folder of a run, and what it printed."""
    folder = tmp_path_factory.mktemp("run")
    result = launch(*train_arguments, "--matching_examples", "16", "--output_dir", str(folder))
    return folder, result.stdout + result.stderr


def test_train_writes_the_model_and_the_report(trained):
    folder, printed = trained
    assert [name for name in REPORT if not (folder / name).exists()] == []
    results = json.loads((folder / "all_results.json").read_text())
    assert results["evaluated_on"] == "test" and results["codes"] == len(CODES) and results["world_size"] == 1
    for name in ("f1_macro", "f1_macro_per_code", "f1_micro", "auc_macro", "auc_micro"):
        assert 0 <= results[f"test_{name}"] <= 1
    assert json.loads((folder / "config.json").read_text())["threshold"] == results["threshold"]
    assert "training frequency" in printed and "this model" in printed


@pytest.mark.parametrize(
    "more", [(), ("--similarity_prior", "True"), ("--scorer", "matching")], ids=["masks", "prior", "matching"]
)
def test_train_in_the_isolated_layout(train_arguments, tmp_path, more):
    options = ("--prompt_layout", "isolated", "--matching_examples", "8", "--output_dir", str(tmp_path / "run"))
    launch(*train_arguments, *options, *more)
    assert [name for name in REPORT if not (tmp_path / "run" / name).exists()] == []
    for name in ("config.json", "processor_config.json"):
        assert json.loads((tmp_path / "run" / name).read_text())["prompt_layout"] == "isolated"
    (tmp_path / "note.txt").write_text("Fever and sepsis.")
    note, output = str(tmp_path / "note.txt"), str(tmp_path / "predictions.jsonl")
    launch("-m", "kept_hf.commands.predict", "--model", str(tmp_path / "run"), "--input", note, "--output", output)
    (line,) = map(json.loads, Path(output).read_text().splitlines())
    assert {entry["code"] for entry in line["codes"]} <= set(CODES)


def test_predictions_belong_to_their_notes(trained, train_arguments):
    from kept_hf.corpora import load_corpus

    folder, _ = trained
    cache = train_arguments[train_arguments.index("--cache_dir") + 1]
    gold = {row["note_id"]: set(row["codes"]) for row in load_corpus("demo", cache_dir=cache).dataset["test"]}
    lines = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    assert lines
    for line in lines:
        assert {entry["code"] for entry in line["codes"]} == set(CODES)
        assert {entry["code"] for entry in line["codes"] if entry["gold"]} == gold[line["note_id"]] & set(CODES)
        assert set(line["codes"][0]) == {"code", "description", "score", "probability", "assigned", "gold"}


def test_predict_gives_the_scores_of_training(trained, train_arguments, tmp_path):
    from kept_hf.corpora import load_corpus

    folder, _ = trained
    cache = train_arguments[train_arguments.index("--cache_dir") + 1]
    notes = {row["note_id"]: row["text"] for row in load_corpus("demo", cache_dir=cache).dataset["test"]}
    expected = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()][:3]
    source, output = tmp_path / "notes.jsonl", tmp_path / "out.jsonl"
    source.write_text(
        "\n".join(json.dumps({"note_id": e["note_id"], "text": notes[e["note_id"]]}) for e in expected) + "\n"
    )
    arguments = ["--model", str(folder), "--input", str(source), "--output", str(output)]
    result = launch("-m", "kept_hf.commands.predict", *arguments)
    assert all(e["note_id"] in result.stdout for e in expected)
    found = [json.loads(line) for line in output.read_text().splitlines()]
    for one, other in zip(found, expected, strict=True):
        assert one["note_id"] == other["note_id"]
        scores = {entry["code"]: entry["score"] for entry in one["codes"]}
        assert scores == pytest.approx({entry["code"]: entry["score"] for entry in other["codes"]}, abs=1e-4)


@pytest.mark.parametrize("content", ['{"text": "a"}\n{"text": 3}\n', "no json\n", ""])
def test_predict_names_the_bad_line(trained, tmp_path, content):
    source = tmp_path / "notes.jsonl"
    source.write_text(content)
    result = launch("-m", "kept_hf.commands.predict", "--model", str(trained[0]), "--input", str(source), check=False)
    assert result.returncode != 0
    expected = "holds no notes" if not content else f"line {len(content.splitlines())}"
    assert expected in result.stderr and 'Traceback (most recent call last):\n  File "' + str(ROOT) not in result.stderr


@pytest.mark.parametrize(
    ("name", "content", "options", "expected"),
    [
        ("notes.csv", "a,b", [], "has no column text"),
        ("note.txt", " \n", [], "the note is empty"),
        ("notes.jsonl", '{"note_id": 7, "text": "a"}\n{"note_id": "7", "text": "b"}\n', [], "line 2: the note_id has"),
        ("note.txt", "Fever", ["--output", "nowhere/out.jsonl"], "there is no such folder"),
        ("note.txt", "Fever", ["--output", __file__], "the file exists; pass another one, or delete it"),
        ("note.txt", "Fever", ["--batch_size", "0"], "--batch_size 0 is less than 1"),
    ],
)
def test_predict_refuses_before_it_loads_the_model(tmp_path, capsys, name, content, options, expected):
    from kept_hf.commands import predict

    (tmp_path / name).write_text(content)
    with pytest.raises(SystemExit):
        predict.main(["--model", "nowhere", "--input", str(tmp_path / name), *options])
    assert expected in capsys.readouterr().err


def test_train_resumes_and_refuses_other_settings(trained, train_arguments):
    folder, _ = trained
    before = json.loads((folder / "all_results.json").read_text())
    run = [*train_arguments, "--matching_examples", "16", "--output_dir", str(folder)]
    result = launch(*run)
    assert "Resuming from" in result.stdout + result.stderr and "Stage 1" not in result.stdout + result.stderr
    after = json.loads((folder / "all_results.json").read_text())
    assert after["test_auc_micro"] == pytest.approx(before["test_auc_micro"], abs=1e-6)
    result = launch(*run, "--learning_rate", "0.5", check=False)
    assert result.returncode != 0 and "learning_rate" in result.stderr


@pytest.mark.parametrize(
    "more",
    [
        ("joint",),
        ("isolated", "--similarity_prior", "True"),
        pytest.param(("isolated",), marks=pytest.mark.slow),
        pytest.param(("isolated", "--scorer", "matching"), marks=pytest.mark.slow),
    ],
    ids=["joint", "prior", "masks", "matching"],
)
def test_two_processes_give_the_loss_of_one(train_arguments, tmp_path, more):
    common = [*train_arguments, "--train_sampling_strategy", "sequential", "--load_best_model_at_end", "False"]
    common += ["--prompt_layout", *more]
    common += ["--hidden_dropout_prob", "0", "--attention_probs_dropout_prob", "0"]
    one, two = tmp_path / "one", tmp_path / "two"
    launch(*common, "--output_dir", str(one))
    launch(*common, "--output_dir", str(two), "--per_device_train_batch_size", "2", processes=2)
    assert json.loads((two / "all_results.json").read_text())["world_size"] == 2
    assert logged_losses(two) == pytest.approx(logged_losses(one), rel=1e-4)
    results = [json.loads((folder / "all_results.json").read_text()) for folder in (one, two)]
    assert results[0]["test_auc_micro"] == pytest.approx(results[1]["test_auc_micro"], abs=1e-4)


def test_trainable_freezes_the_rest(tiny_checkpoint, train_arguments, tmp_path):
    import torch
    from safetensors.torch import load_file

    from kept_hf.training.conversion import convert_to_kept_longformer

    torch.manual_seed(0)
    launch(*train_arguments, "--trainable", "bias,lm_head", "--output_dir", str(tmp_path))
    base = convert_to_kept_longformer(str(tiny_checkpoint), 512, 16, 32)[0].state_dict()
    trained = load_file(tmp_path / "model.safetensors")
    changed = {name for name, value in trained.items() if not torch.equal(value, base[name])}
    assert changed and all("bias" in name or "lm_head" in name for name in changed)
    assert any(name.startswith("longformer.encoder") for name in changed)


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("--corpus", "mimic9", "codiesp"),
        ("--preset", "kept-51", "kept-rerank"),
        ("--codes", "rare51", "rare50"),
        ("--threshold_metric", "f1", "f1_micro, f1_macro"),
        ("--max_length", "40", "max_length=40"),
        ("--peft", "lara", "peft='lara' is unknown; pass one of lora, lora+bias"),
    ],
)
def test_train_refuses_unknown_choices(train_arguments, tmp_path, option, value, expected):
    result = launch(*train_arguments, "--output_dir", str(tmp_path), option, value, check=False)
    assert result.returncode != 0 and expected in result.stderr


@pytest.mark.parametrize("corpus", [["--corpus", "mimic3"], ["--corpus=mimic3"]])
@pytest.mark.parametrize("bf16", [["--bf16", "False"], ["--bf16=False"], []])
def test_recipe_and_precision_in_any_spelling(train, monkeypatch, corpus, bf16):
    monkeypatch.setattr("kept_hf.commands.recipe.bf16_helps", lambda: True)
    model, data, training = train.parse_arguments([*corpus, *bf16, "--use_cpu", "True"])
    assert data.corpus_options == ["config=50"]
    assert model.model_name_or_path == "whaleloops/keptlongformer"
    assert training.bf16 == (not bf16)


@pytest.mark.parametrize("corpus", ["demo", "codiesp", "mimic3", "mimic4"])
def test_each_corpus_has_a_recipe(train, corpus):
    model, data, _ = train.parse_arguments(["--corpus", corpus, "--use_cpu", "True", "--bf16", "False"])
    assert data.corpus == corpus
    assert model.max_length != 8192 or model.model_name_or_path == "whaleloops/keptlongformer"


def test_matching_takes_a_step_per_batch_in_the_given_order(train, monkeypatch, tmp_path):
    seen = []

    class Recorder:
        def __init__(self, model, arguments, **_):
            seen.append(arguments)

        def train(self):
            pass

    monkeypatch.setattr(train, "Trainer", Recorder)
    options = ["--gradient_accumulation_steps", "4", "--learning_rate", "0.5", "--output_dir", str(tmp_path)]
    options += ["--max_steps", "2"]
    _, data, training = train.parse_arguments([*options, "--matching_batch_size", "6", "--use_cpu", "True"])
    train.match(None, None, data, training, None)
    assert seen[0].max_steps == -1 and seen[0].num_train_epochs == 1 and training.max_steps == 2
    assert seen[0].gradient_accumulation_steps == 1
    assert seen[0].per_device_train_batch_size == 6
    assert seen[0].learning_rate == data.matching_learning_rate == 3e-4
    assert seen[0].train_sampling_strategy == "sequential"
    assert training.gradient_accumulation_steps == 4


@pytest.mark.parametrize("recipe", ["mimic3", "mimic3_rare50"])
def test_mimic3_recipes_on_files_in_its_layout(tiny_checkpoint, tmp_path, recipe):
    from kept_hf.corpora.demo import write_demo_files

    write_demo_files(tmp_path / "raw")
    values = {
        "data_dir": tmp_path / "raw",
        "cache_dir": tmp_path / "cache",
        "output_dir": tmp_path / "out",
        "model_name_or_path": tiny_checkpoint,
        "max_length": 700,
        "codes_per_prompt": 10,
        "sampled_codes": 10,
        "attention_window": 16,
        "max_steps": 2,
        "per_device_eval_batch_size": 16,
        "bf16": "False",
        "use_cpu": "True",
        "eval_strategy": "no",
        "load_best_model_at_end": "False",
    }
    options = [part for name, value in values.items() for part in (f"--{name}", str(value))]
    launch("examples/train.py", recipe, *options)
    results = json.loads((tmp_path / "out" / "all_results.json").read_text())
    assert results["codes"] == (45 if recipe == "mimic3_rare50" else 50)
    assert results["settings"]["preset"] == "kept-50"
    assert results["settings"]["trainable"] == ("bias,lm_head" if recipe == "mimic3_rare50" else None)


@pytest.mark.parametrize(
    ("option", "expected"),
    [("rare50", "corpus_options has 'rare50'; write name=value"), ("size=3", "has no option size; it has: seed")],
)
def test_train_refuses_unknown_corpus_options(train_arguments, tmp_path, option, expected):
    result = launch(*train_arguments, "--output_dir", str(tmp_path), "--corpus_options", option, check=False)
    assert result.returncode != 0 and expected in result.stderr


def test_train_says_which_split_is_missing(train_arguments, tmp_path):
    texts = tmp_path / "codiesp" / "train" / "text_files_en"
    texts.mkdir(parents=True)
    (texts / "case-1.txt").write_text("Fever.")
    for letter in "DPX":
        (texts.parent / f"train{letter}.tsv").write_text("case-1\tr50.9\n" if letter == "D" else "")
    folder = ["--data_dir", str(tmp_path / "codiesp"), "--output_dir", str(tmp_path / "out")]
    result = launch(*train_arguments, "--corpus", "codiesp", "--codes", "all", *folder, check=False)
    assert result.returncode != 0 and "needs validation" in result.stderr


@pytest.fixture(scope="module")
def adapted(train_arguments, tmp_path_factory) -> Path:
    """The folder of a run that trains an adapter after the matching stage."""
    folder = tmp_path_factory.mktemp("adapted")
    options = ["--peft", "lora+bias", "--learning_rate", "0.01", "--matching_examples", "16"]
    launch(*train_arguments, *options, "--output_dir", str(folder))
    return folder


def test_train_counts_the_parameters_that_train(trained, adapted):
    from kept_hf import KeptLongformerForICDPrompting

    model = KeptLongformerForICDPrompting.from_pretrained(trained[0])
    results = [json.loads((folder / "all_results.json").read_text()) for folder in (trained[0], adapted)]
    assert results[0]["trainable_parameters"] == model.num_parameters()
    matrices = 6 * 2 * 8 * model.config.hidden_size * model.config.num_hidden_layers
    biases = sum(parameter.numel() for name, parameter in model.named_parameters() if name.endswith("bias"))
    assert results[1]["trainable_parameters"] == matrices + biases


def test_train_writes_adapter_base_and_merged_model(adapted):
    import torch
    from peft import AutoPeftModelForSequenceClassification

    from kept_hf import KeptLongformerForICDPrompting, KeptProcessor

    assert [name for name in REPORT if not (adapted / name).exists()] == []
    assert not (adapted / "adapter_config.json").exists(), "the folder would be read as an adapter's"
    assert not (adapted / "adapter" / "config.json").exists(), "the folder would be read as a whole model's"
    settings = json.loads((adapted / "adapter" / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == str(adapted / "base")
    merged = KeptLongformerForICDPrompting.from_pretrained(adapted).eval()
    base = KeptLongformerForICDPrompting.from_pretrained(adapted / "base").eval()
    loaded = AutoPeftModelForSequenceClassification.from_pretrained(adapted / "adapter").eval()
    assert merged.config.threshold == loaded.config.threshold == base.config.threshold != 0
    features = KeptProcessor.from_pretrained(adapted / "adapter")(["Fever, sepsis."], return_tensors="pt")
    with torch.no_grad():
        torch.testing.assert_close(loaded(**features).logits, merged(**features).logits, atol=1e-5, rtol=1e-5)
        assert (base(**features).logits - merged(**features).logits).abs().max() > 1e-3


def test_predict_takes_the_merged_model(adapted, train_arguments, tmp_path):
    from kept_hf.corpora import load_corpus

    cache = train_arguments[train_arguments.index("--cache_dir") + 1]
    notes = {row["note_id"]: row["text"] for row in load_corpus("demo", cache_dir=cache).dataset["test"]}
    expected = json.loads((adapted / "predictions.jsonl").read_text().splitlines()[0])
    source, output = tmp_path / "note.txt", tmp_path / "out.jsonl"
    source.write_text(notes[expected["note_id"]])
    launch("-m", "kept_hf.commands.predict", "--model", str(adapted), "--input", str(source), "--output", str(output))
    found = json.loads(output.read_text())
    scores = {entry["code"]: entry["score"] for entry in found["codes"]}
    assert scores == pytest.approx({entry["code"]: entry["score"] for entry in expected["codes"]}, abs=1e-4)
    assert [entry["assigned"] for entry in found["codes"]] == [entry["assigned"] for entry in expected["codes"]]


def test_train_resumes_the_adapter_on_its_base(adapted, train_arguments):
    """From a checkpoint before the end, on the base that the matching stage had made."""
    import shutil

    from safetensors.torch import load_file

    before = load_file(adapted / "adapter" / "adapter_model.safetensors")
    losses = logged_losses(adapted)
    shutil.rmtree(adapted / "checkpoint-4")
    options = ["--peft", "lora+bias", "--learning_rate", "0.01", "--matching_examples", "16"]
    result = launch(*train_arguments, *options, "--output_dir", str(adapted))
    assert "checkpoint-2" in result.stderr + result.stdout and "Stage 1" not in result.stderr + result.stdout
    assert logged_losses(adapted) == pytest.approx(losses, rel=1e-4)
    after = load_file(adapted / "adapter" / "adapter_model.safetensors")
    assert after.keys() == before.keys()
    assert all(after[name].allclose(value, atol=1e-5) for name, value in before.items())


@pytest.mark.slow
def test_an_adapter_in_two_processes_has_the_loss_of_one(adapted, train_arguments, tmp_path):
    """Here the base is a checkpoint of its own, which is not written again."""
    common = [*train_arguments, "--train_sampling_strategy", "sequential", "--load_best_model_at_end", "False"]
    common += ["--hidden_dropout_prob", "0", "--attention_probs_dropout_prob", "0", "--learning_rate", "0.01"]
    common += ["--peft", "lora", "--model_name_or_path", str(adapted / "base")]
    one, two = tmp_path / "one", tmp_path / "two"
    launch(*common, "--output_dir", str(one))
    launch(*common, "--output_dir", str(two), "--per_device_train_batch_size", "2", processes=2)
    results = [json.loads((folder / "all_results.json").read_text()) for folder in (one, two)]
    assert [r["world_size"] for r in results] == [1, 2]
    assert logged_losses(two) == pytest.approx(logged_losses(one), rel=1e-4)
    assert results[0]["test_auc_micro"] == pytest.approx(results[1]["test_auc_micro"], abs=1e-4)
    assert results[0]["trainable_parameters"] == results[1]["trainable_parameters"]
    for folder in (one, two):
        settings = json.loads((folder / "adapter" / "adapter_config.json").read_text())
        assert settings["base_model_name_or_path"] == str(adapted / "base") and not (folder / "base").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--scorer", "both"), "scorer='both' is unknown; pass one of prompting, matching"),
        (("--scorer", "matching"), "scorer='matching' compares .*--prompt_layout isolated"),
        (("--similarity_prior", "True"), "similarity_prior=True compares .*--prompt_layout isolated"),
        (("--scorer", "matching", "--prompt_layout", "isolated", "--peft", "lora"), "peft='lora' is not supported"),
    ],
)
def test_scorers_that_need_something_else(train, arguments, message):
    with pytest.raises(SystemExit, match=message):
        train.check_scorer(train.parse_arguments([*arguments, "--use_cpu", "True"])[0])


def test_peft_and_trainable_exclude_each_other(train):
    model, _, _ = train.parse_arguments(["--peft", "lora", "--trainable", "bias", "--use_cpu", "True"])
    with pytest.raises(
        SystemExit, match=r"peft='lora' and trainable='bias' exclude each other; pass --peft lora\+bias"
    ):
        train.check_peft(model)
