"""What `kept-hf train` refuses: a line and the exit status 2, before anything is trained."""

from __future__ import annotations

import pytest
from transformers import TrainingArguments

from kept_hf.training.arguments import DataArguments
from kept_hf.training.checks import (
    check_adapter,
    check_best_metric,
    check_negatives,
    check_scorer,
)
from kept_hf.training.task import read_candidates


def refused(run_train, folder, capsys, *options) -> str:
    """The last line of what a run with these options prints."""
    with pytest.raises(SystemExit) as error:
        run_train("--output_dir", folder / "run", *options)
    assert error.value.code == 2
    assert not (folder / "run").exists()
    printed = capsys.readouterr().err.splitlines()[-1]
    assert printed.startswith("kept-hf train: error: ")
    return printed


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("--corpus", "mimic9", "codiesp"),
        ("--preset", "kept-51", "kept-rerank"),
        ("--codes", "rare51", "rare50"),
        ("--threshold_metric", "f1", "f1_micro, f1_macro"),
        ("--max_length", "40", "max_length=40"),
        ("--peft", "lara", "peft='lara' is unknown; pass one of lora, lora+bias"),
        ("--trainable", "weihgt", "trainable='weihgt' matches no parameter"),
        ("--corpus_options", "size=3", "has no option size; it has: seed"),
        ("--candidates", "test=nowhere.npz", "nowhere.npz"),
        ("--model_name_or_path", "./nowhere", "nowhere"),
        ("--global_batch_size", "3", "global_batch_size=3 is not a multiple of the 4 prompts"),
        (
            "--metric_for_best_model",
            "nope",
            "'nope' is not reported for 5 codes; pass --metric_for_best_model with one of",
        ),
        ("--metric_for_best_model", "precision_at_8", "precision_at_5, recall_at_5, f1_at_5, map"),
        ("--draws", "0", "draws=0 is less than 1; pass --draws 1 or more"),
        ("--sampled_codes", "0", "sampled_codes=0 is less than 1"),
        ("--matching_examples", "-1", "matching_examples=-1 is less than 0"),
        ("--matching_codes", "5", "matching_codes=[5] is not two positive integers"),
        ("--max_length", "1", "max_length=1"),
        ("--label_smoothing_factor", "0.1", "label_smoothing_factor=0.1 would replace the model's own loss"),
        ("--lora_r", "4", "lora_r=4 shapes an adapter, and there is none; pass --peft lora"),
        ("--hard_negatives", "0.3", "hard_negatives=0.3 is a share of candidates, and there are none"),
        ("--hard_negatives", "2", "hard_negatives=2.0 is no share"),
        ("--in_batch_negatives", "True", "in_batch_negatives=True asks each note about the codes drawn for the others"),
        ("--recipe", "mimic3", "unrecognized arguments: --recipe mimic3"),
        ("--learning_rate", "nan", "learning_rate=nan is no finite number"),
        ("--matching_learning_rate", "inf", "matching_learning_rate=inf is no finite number"),
        ("--per_device_train_batch_size", "0", "per_device_train_batch_size=0 is less than 1"),
        ("--num_train_epochs", "many", "argument --num_train_epochs/--num-train-epochs: invalid float value: 'many'"),
    ],
)
def test_choices_that_do_not_fit(run_train, tmp_path, capsys, option, value, expected):
    assert expected in refused(run_train, tmp_path, capsys, option, value)


def test_in_batch_negatives_and_candidates():
    data = DataArguments(sampled_codes=5, in_batch_negatives=True, candidates=["train=a.npz", "validation=b.npz"])
    with pytest.raises(ValueError, match=r"no candidates of validation=b\.npz; omit one of them"):
        check_negatives(data, "matching")
    with pytest.raises(ValueError, match="pass --scorer matching and --sampled_codes"):
        check_negatives(data, "prompting")
    data.candidates.pop()
    check_negatives(data, "matching")


def test_a_file_where_the_folder_should_be(run_train, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    message = refused(run_train, tmp_path / "file", capsys)
    assert "/file is a file; pass a folder" in message


def test_two_numbers_of_sentences(run_train, tmp_path, capsys):
    message = refused(run_train, tmp_path, capsys, "--matching_sentences", "0", "-1")
    assert "matching_sentences=[0, -1] is not two positive integers" in message


def test_a_metric_that_is_not_used_may_be_any(tmp_path):
    training = TrainingArguments(tmp_path, eval_strategy="no", metric_for_best_model="precision_at_8", use_cpu=True)
    check_best_metric(training, 5)


@pytest.mark.parametrize("metric", ["eval_map", "loss", "precision_at_50"])
def test_metrics_that_are_reported(tmp_path, metric):
    check_best_metric(TrainingArguments(tmp_path, eval_strategy="steps", metric_for_best_model=metric), 50)


def test_a_corpus_option_without_a_value(run_train, tmp_path, capsys):
    with pytest.raises(SystemExit) as error:
        run_train("--output_dir", tmp_path / "run", "--corpus_options", "rare50")
    assert "corpus_options has 'rare50'; write name=value" in f"{error.value} {capsys.readouterr().err}"


@pytest.mark.parametrize(
    ("option", "instead"),
    [
        (["--do_train"], "kept-hf evaluate"),
        (["--do_eval", "True"], "kept-hf evaluate"),
        (["--do-predict=False"], "kept-hf predict"),
        (["--do_tr", "True"], "kept-hf evaluate"),
        (["--push_to_hub"], "kept-hf push"),
        (["--hub_strategy", "end"], "kept-hf push"),
        (["--hub_model_id", "me/model"], "kept-hf push"),
        (["--hub_private_repo", "True"], "kept-hf push"),
        (["--resume_from_checkpoint", "outputs/checkpoint-4"], "with the same --output_dir"),
    ],
)
def test_options_without_effect(run_train, tmp_path, capsys, option, instead):
    message = refused(run_train, tmp_path, capsys, *option)
    assert "it has no effect here" in message and instead in message


def test_the_missing_split(run_train, tmp_path, capsys):
    texts = tmp_path / "codiesp" / "train" / "text_files_en"
    texts.mkdir(parents=True)
    (texts / "case-1.txt").write_text("Fever.")
    for letter in "DPX":
        (texts.parent / f"train{letter}.tsv").write_text("case-1\tr50.9\n" if letter == "D" else "")
    options = ["--corpus", "codiesp", "--codes", "all", "--data_dir", tmp_path / "codiesp"]
    assert "needs validation" in refused(run_train, tmp_path, capsys, *options)


def test_an_error_in_training_keeps_its_traceback(run_train, tmp_path, monkeypatch):
    from kept_hf.commands import train

    def fail(*_):
        raise ValueError("a mistake in the code")

    monkeypatch.setattr(train, "timed_training", fail)
    with pytest.raises(ValueError, match="a mistake in the code"):
        run_train("--output_dir", tmp_path / "run")
    assert not (tmp_path / "run" / "all_results.json").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--scorer", "both"), "scorer='both' is unknown; pass one of prompting, matching"),
        (("--names_per_code", "3"), "names_per_code=3 is for late interaction; pass --scorer matching"),
        (("--scorer", "matching", "--peft", "lora"), "peft='lora' is not supported"),
    ],
)
def test_scorers_that_need_something_else(train, arguments, message):
    with pytest.raises(ValueError, match=message):
        check_scorer(train.parse_arguments(["demo_published", *arguments, "--use_cpu", "True"])[0])


def test_peft_and_trainable_exclude_each_other(train):
    model, _, _ = train.parse_arguments(["--peft", "lora", "--trainable", "bias", "--use_cpu", "True"])
    with pytest.raises(
        ValueError, match=r"peft='lora' and trainable='bias' exclude each other; pass --peft lora\+bias"
    ):
        check_adapter(model)


@pytest.mark.parametrize("option", ["dev=a.npz", "train", "train="])
def test_candidates_of_no_split_or_file(option):
    with pytest.raises(ValueError, match=f"candidates names {option.partition('=')[0]}; write train=FILE, validation="):
        read_candidates([option])
