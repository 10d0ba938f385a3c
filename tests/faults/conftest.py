"""Tiny runs of the training commands, to be interrupted."""

from __future__ import annotations

import pytest

STEPS = ("--max_steps", "4", "--save_strategy", "steps", "--save_steps", "2", "--save_total_limit", "3")


@pytest.fixture(scope="session")
def train_command(train_arguments) -> list[str]:
    """`kept-hf train` with tiny settings: recipe and options."""
    return [str(argument) for argument in train_arguments[1:]]


@pytest.fixture(scope="session")
def commands(train_arguments, train_command, tiny_checkpoint, tmp_path_factory) -> dict[str, list[str]]:
    """Command → recipe and options of a run of four steps, with a checkpoint every two."""
    folder = tmp_path_factory.mktemp("inputs")
    kinds = {"fever": "preferred", "heat": "synonym"}
    names = [f"C{number},{name} {number},{kind}," for number in range(30) for name, kind in kinds.items()]
    (folder / "terms.csv").write_text("\n".join(["concept_id,name,kind,parent_id", *names]) + "\n")
    for number in range(12):
        text = f"fever and cough on day {number}, treated at home. " * 4
        (folder / f"note{number:02}.txt").write_text(text)
    values = dict(zip(train_arguments[2::2], map(str, train_arguments[3::2]), strict=True))
    pretraining = ["--model_name_or_path", tiny_checkpoint, "--max_minutes", "0", "--attention_window", "16"]
    pretraining += ["--position_period", "32", "--per_device_train_batch_size", "2", *STEPS]
    common = ["--use_cpu", "True", "--disable_tqdm", "True", "--eval_strategy", "no"]
    found = {
        "train": [*train_command, *STEPS, "--load_best_model_at_end", "False"],
        "pretrain_hsap": [
            *("hsap", "--sources", "csv", "--csv_file", folder / "terms.csv", "--held_out_synonyms", "4"),
            *("--held_out_abbreviations", "0", "--trained_abbreviations", "0", *pretraining),
        ],
        "pretrain_mlm": [
            *("mlm", "--text_files", *sorted(folder.glob("note*.txt")), "--held_out_notes", "2", "--block_size", "64"),
            *("--descriptions", "", *pretraining),
        ],
        "train_msmn": [
            *("msmn_demo", "--codes", values["--codes"], "--cache_dir", values["--cache_dir"], "--lstm_size", "8"),
            *("--attention_size", "8", "--embedding_size", "6", "--num_synonyms", "2", "--word_epochs", "1"),
            *("--max_words", "60", "--num_candidates", "4", *STEPS, "--load_best_model_at_end", "False"),
        ],
    }
    return {command: [*map(str, options), *common] for command, options in found.items()}
