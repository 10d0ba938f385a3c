"""`kept-hf train --peft`: the adapter, its base and the merged model."""

from __future__ import annotations

import json
import logging
import shutil

import pytest
import torch
from launching import launch, logged_losses
from peft import AutoPeftModelForSequenceClassification
from safetensors.torch import load_file
from train_runs import ADAPTED, REPORT, results_of

from kept_hf import KeptLongformerForICDPrompting, KeptProcessor


def test_it_counts_the_parameters_that_train(trained, adapted):
    model = KeptLongformerForICDPrompting.from_pretrained(trained)
    results = [results_of(folder) for folder in (trained, adapted)]
    assert results[0]["trainable_parameters"] == model.num_parameters()
    matrices = 6 * 2 * 8 * model.config.hidden_size * model.config.num_hidden_layers
    biases = sum(parameter.numel() for name, parameter in model.named_parameters() if name.endswith("bias"))
    assert results[1]["trainable_parameters"] == matrices + biases


def test_it_writes_adapter_base_and_merged_model(adapted):
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


def test_it_resumes_the_adapter_on_its_base(adapted, run_train, tmp_path, caplog):
    """From a checkpoint before the end, on the base that the synthetic stage had made."""
    before = load_file(adapted / "adapter" / "adapter_model.safetensors")
    folder = shutil.copytree(adapted, tmp_path / "run")
    shutil.rmtree(folder / "checkpoint-4")
    with caplog.at_level(logging.INFO):
        run_train(*ADAPTED, "--output_dir", folder)
    assert "checkpoint-2" in caplog.text and "Stage 1" not in caplog.text
    assert logged_losses(folder) == pytest.approx(logged_losses(adapted), rel=1e-4)
    after = load_file(folder / "adapter" / "adapter_model.safetensors")
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
    results = [results_of(folder) for folder in (one, two)]
    assert [r["world_size"] for r in results] == [1, 2]
    assert logged_losses(two) == pytest.approx(logged_losses(one), rel=1e-4)
    assert results[0]["test_auc_micro"] == pytest.approx(results[1]["test_auc_micro"], abs=1e-4)
    assert results[0]["trainable_parameters"] == results[1]["trainable_parameters"]
    for folder in (one, two):
        settings = json.loads((folder / "adapter" / "adapter_config.json").read_text())
        assert settings["base_model_name_or_path"] == str(adapted / "base") and not (folder / "base").exists()
