import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from hub_server import HubServer
from peft import AutoPeftModelForSequenceClassification, PeftModel
from processes import run_program
from transformers import Trainer, TrainingArguments

from kept_hf import DataCollatorForICDPrompting, KeptLongformerConfig, KeptLongformerForICDPrompting
from kept_hf.training.adapters import (
    PEFT_METHODS,
    TARGET_MODULES,
    adapter_config,
    add_adapter,
    loads_by_name,
    merged_model,
)
from kept_hf.training.rows import prompt_rows
from kept_hf.training.weights import train_only

METHODS = list(PEFT_METHODS)
ROOT = Path(__file__).parents[2]


@pytest.fixture
def rows(processor):
    """Rows that ask 1 to 6 codes, so that batches hold different numbers of labels."""
    codes = list(processor.code_set)
    asked = [codes[: 1 + i % 6] for i in range(8)]
    texts = ["fever and cough " * (1 + 3 * i) for i in range(8)]
    return prompt_rows(Dataset.from_dict({"text": texts, "codes": [a[::2] for a in asked], "asked": asked}), processor)


@pytest.fixture
def base(tiny_model, tmp_path):
    """The model as a checkpoint that has a name."""
    tiny_model.save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def load_base(base):
    return KeptLongformerForICDPrompting.from_pretrained(base).eval()


def trainer_of(model, processor, rows, folder, **settings):
    arguments = TrainingArguments(
        **{
            "output_dir": str(folder),
            "max_steps": 4,
            "learning_rate": 1e-2,
            "lr_scheduler_type": "constant",
            "per_device_train_batch_size": 2,
            "train_sampling_strategy": "sequential",
            "logging_steps": 1,
            "save_strategy": "no",
            "label_names": ["labels"],
            "use_cpu": True,
            "report_to": "none",
            "disable_tqdm": True,
            **settings,
        }
    )
    collator = DataCollatorForICDPrompting(processor)
    return Trainer(model, arguments, data_collator=collator, train_dataset=rows, eval_dataset=rows)


def batch_of(rows, processor):
    return DataCollatorForICDPrompting(processor)([dict(row) for row in rows.remove_columns("length")])


def logits_of(model, processor, rows):
    features = batch_of(rows, processor)
    with torch.no_grad():
        return model.eval()(**{name: value for name, value in features.items() if name != "labels"}).logits


def trained_parameters(model):
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize("method", METHODS)
def test_what_trains(tiny_model, method):
    before = dict(tiny_model.named_parameters())
    biases = {id(parameter) for name, parameter in before.items() if name.endswith("bias")}
    total = tiny_model.num_parameters()
    model = add_adapter(tiny_model, adapter_config(method, lora_r=2), "nowhere")
    trains = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    matrices = {name for name in trains if "lora_" in name}
    # Two layers, six projections each, two matrices each.
    assert len(matrices) == 2 * len(TARGET_MODULES) * 2
    assert {name.split(".lora_")[0].rsplit(".", 1)[-1] for name in matrices} == set(TARGET_MODULES)
    others = {id(parameter) for name, parameter in trains.items() if name not in matrices}
    assert others == (biases if method == "lora+bias" else set())
    assert model.num_parameters(only_trainable=True) == sum(parameter.numel() for parameter in trains.values())
    assert model.num_parameters() == total + sum(trains[name].numel() for name in matrices)


def test_the_head_stays_as_it_is(tiny_model):
    """peft adds heads called "classifier" and "score" to what is saved for this task: none here."""
    from peft.utils.other import AuxiliaryTrainingWrapper

    head = tiny_model.lm_head
    model = add_adapter(tiny_model, adapter_config(), "nowhere")
    assert model.get_base_model().lm_head is head
    assert head.decoder.weight is model.get_base_model().get_input_embeddings().weight
    assert not [module for module in model.modules() if isinstance(module, AuxiliaryTrainingWrapper)]


def test_the_model_takes_the_argument_that_peft_hands_on(tiny_model, processor, rows):
    batch = batch_of(rows, processor)
    assert tiny_model(**batch, inputs_embeds=None).loss > 0
    with pytest.raises(ValueError, match="inputs_embeds is given; pass input_ids alone"):
        tiny_model(**batch, inputs_embeds=torch.zeros(1, 1, 16))


def test_an_untrained_adapter_changes_nothing(tiny_model, processor, rows):
    before = logits_of(tiny_model, processor, rows)
    assert torch.equal(logits_of(add_adapter(tiny_model, adapter_config(), "nowhere"), processor, rows), before)


@pytest.mark.parametrize("method", METHODS)
def test_saved_loaded_merged(base, processor, rows, tmp_path, method):
    model = add_adapter(load_base(base), adapter_config(method, lora_r=2), base)
    untrained = logits_of(model, processor, rows)
    trainer_of(model, processor, rows, tmp_path / "run").train()
    expected = logits_of(model, processor, rows)
    assert (expected - untrained).abs().max() > 1e-2
    adapter = tmp_path / "adapter"
    model.save_pretrained(adapter)
    assert not (adapter / "model.safetensors").exists()
    saved = json.loads((adapter / "adapter_config.json").read_text())
    assert saved["task_type"] == "SEQ_CLS" and saved["base_model_name_or_path"] == str(base)

    on_base = PeftModel.from_pretrained(load_base(base), adapter)
    by_name = AutoPeftModelForSequenceClassification.from_pretrained(adapter)
    by_transformers = KeptLongformerForICDPrompting.from_pretrained(adapter)
    merged = merged_model(adapter)
    assert isinstance(by_name.get_base_model(), KeptLongformerForICDPrompting)
    assert type(merged) is KeptLongformerForICDPrompting
    merged.save_pretrained(tmp_path / "merged")
    for loaded in (
        on_base,
        by_name,
        by_transformers,
        merged,
        load_base(tmp_path / "merged"),
        on_base.merge_and_unload(),
    ):
        torch.testing.assert_close(logits_of(loaded, processor, rows), expected, atol=1e-5, rtol=1e-5)
    # The base's own files are untouched.
    torch.testing.assert_close(logits_of(load_base(base), processor, rows), untrained, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_training_changes_what_trains_only(base, processor, rows, tmp_path, method):
    model = add_adapter(load_base(base), adapter_config(method, lora_r=2), base)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    names = trained_parameters(model)
    trainer_of(model, processor, rows, tmp_path).train()
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    # The decoder's bias is the head's, under another name.
    assert changed - {"base_model.model.lm_head.decoder.bias"} <= names
    assert len(changed & names) > 0.7 * len(names)  # the last layer's global queries, say, reach no mask
    if method == "lora":
        assert all("lora_" in name for name in changed)


def test_both_attentions_adapt_alike(base, processor, rows):
    """transformers' eager attention divides the queries in place."""
    found = []
    for backend in ("eager", "sdpa"):
        torch.manual_seed(0)
        model = add_adapter(load_base(base), adapter_config(lora_r=2), base)
        model.config.attention_backend = backend
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_B" in name:
                    parameter.normal_(std=0.1)
        output = model(**batch_of(rows, processor))
        output.loss.backward()
        found.append([output.logits, *(p.grad for p in model.parameters() if p.grad is not None)])
    assert len(found[0]) > 10
    torch.testing.assert_close(found[0], found[1], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_dropout(base, processor, rows, dropout):
    model = add_adapter(load_base(base), adapter_config(lora_dropout=dropout), base)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    features = batch_of(rows, processor)
    model.train()
    assert torch.equal(model(**features).logits, model(**features).logits) == (dropout == 0)


def losses_and_gradients(trainer):
    trainer.train()
    entries = [entry for entry in trainer.state.log_history if "loss" in entry]
    return np.array([[entry["loss"], entry["grad_norm"]] for entry in entries])


@pytest.mark.parametrize("method", METHODS)
def test_accumulation_changes_neither_loss_nor_gradient(base, processor, rows, tmp_path, method):
    """The Trainer must see through peft's class that this model divides by the number of codes of all batches."""
    found = {}
    for steps in (1, 2, 4):
        torch.manual_seed(0)
        model = add_adapter(load_base(base), adapter_config(method, lora_r=2), base)
        settings = {"per_device_train_batch_size": 4 // steps, "gradient_accumulation_steps": steps}
        trainer = trainer_of(model, processor, rows, tmp_path, seed=0, **settings)
        assert trainer.model_accepts_loss_kwargs and trainer.label_names == ["labels"]
        found[steps] = losses_and_gradients(trainer)
    assert len(found[1]) == 4 and (found[1] > 0).all()
    for steps in (2, 4):
        np.testing.assert_allclose(found[steps], found[1], rtol=1e-4)
    # The first loss is the mean over the codes of the first four rows, of the base, since the adapter is untrained.
    with torch.no_grad():
        loss = load_base(base)(**batch_of(rows.select(range(4)), processor)).loss
    assert found[1][0, 0] == pytest.approx(loss.item(), rel=1e-4)


def test_evaluation_has_loss_labels_and_all_inputs(base, processor, rows, tmp_path):
    model = add_adapter(load_base(base), adapter_config(), base)
    trainer = trainer_of(model, processor, rows, tmp_path, per_device_eval_batch_size=8)
    prediction = trainer.predict(rows)
    batch = batch_of(rows, processor)
    assert prediction.label_ids.tolist() == batch["labels"].tolist()
    np.testing.assert_allclose(prediction.predictions, logits_of(model, processor, rows), rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        loss = load_base(base)(**batch).loss
    assert trainer.evaluate()["eval_loss"] == pytest.approx(loss.item(), rel=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_the_best_checkpoint_comes_back(base, processor, rows, tmp_path, method):
    """Biases too. The greatest loss counts as the best, so that it is not the last checkpoint."""
    model = add_adapter(load_base(base), adapter_config(method), base)
    settings = {"eval_strategy": "steps", "save_strategy": "steps", "eval_steps": 1, "save_steps": 1}
    settings |= {"load_best_model_at_end": True, "metric_for_best_model": "loss", "greater_is_better": True}
    trainer = trainer_of(model, processor, rows, tmp_path, **settings)
    trainer.train()
    losses = [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry]
    best = trainer.state.best_global_step
    assert best == 1 + int(np.argmax(losses)) < 4 and losses[-1] < 0.9 * max(losses)
    assert trainer.evaluate()["eval_loss"] == pytest.approx(max(losses), rel=1e-5)
    at_best = PeftModel.from_pretrained(load_base(base), tmp_path / f"checkpoint-{best}")
    torch.testing.assert_close(logits_of(model, processor, rows), logits_of(at_best, processor, rows))


def test_activation_checkpointing_keeps_the_gradients(base, processor, rows, tmp_path):
    found = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        model = add_adapter(load_base(base), adapter_config(lora_r=2), base)
        found.append(
            losses_and_gradients(trainer_of(model, processor, rows, tmp_path, activation_checkpointing=checkpointing))
        )
    np.testing.assert_allclose(found[1], found[0], rtol=1e-4)


def test_bitfit_changes_what_it_says(base, processor, rows, tmp_path):
    model = load_base(base)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    count = train_only(model, ["bias", "lm_head"])
    trainer_of(model, processor, rows, tmp_path).train()
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed and all("bias" in name or "lm_head" in name for name in changed)
    assert count == model.num_parameters(only_trainable=True)


def test_loads_by_name(tiny_model, base, tmp_path):
    assert not loads_by_name(tiny_model), "made in memory"
    assert loads_by_name(load_base(base))
    config = json.loads((base / "config.json").read_text())
    for architecture in ("LongformerForMaskedLM", "KeptLongformerForMaskedLM"):
        (base / "config.json").write_text(json.dumps({**config, "architectures": [architecture]}))
        assert not loads_by_name(load_base(base)), architecture


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "lara"}, r"peft='lara' is unknown; pass one of lora, lora\+bias\."),
        ({"lora_r": 0}, "lora_r=0 is less than 1"),
        ({"lora_alpha": -1}, "lora_alpha=-1 is less than 1"),
        ({"lora_dropout": 1.0}, r"lora_dropout=1\.0 is not a probability below 1"),
    ],
)
def test_errors(settings, message):
    with pytest.raises(ValueError, match=message):
        adapter_config(**settings)


def test_merged_model_takes_the_configuration_it_is_given(base, tmp_path):
    add_adapter(load_base(base), adapter_config(), base).save_pretrained(tmp_path)
    assert merged_model(tmp_path).config.threshold == 0
    config = KeptLongformerConfig.from_pretrained(base, threshold=0.5, id2label={0: "I10"}, label2id={"I10": 0})
    merged = merged_model(tmp_path, config)
    assert merged.config.threshold == 0.5 and merged.config.id2label == {0: "I10"}


@pytest.fixture
def lora_run(tiny_model, processor, tmp_path):
    """What the training command leaves of an adapter and its base, below a folder to work in."""
    folder = tmp_path / "outputs" / "lora"
    tiny_model.save_pretrained(folder / "base")
    model = add_adapter(load_base(folder / "base"), adapter_config("lora+bias"), "outputs/lora/base")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * parameter.requires_grad
    model.save_pretrained(folder / "adapter")
    for name in ("base", "adapter"):
        processor.save_pretrained(folder / name)
    return tmp_path


def snippet(section):
    text = (ROOT / "docs" / "adapters.md").read_text(encoding="utf-8")
    return re.search(rf"## {section}\n.*?```python\n(.*?)```", text, re.S)[1]


def test_the_docs_load_and_merge(lora_run, monkeypatch):
    monkeypatch.chdir(lora_run)
    names = {}
    exec(snippet("Load and merge"), names)
    assert type(names["merged"]) is KeptLongformerForICDPrompting
    with torch.no_grad():
        again = names["merged"](**names["processor"](["Afib, rate controlled."], return_tensors="pt")).logits
    torch.testing.assert_close(again, names["logits"].detach(), atol=1e-5, rtol=1e-5)


def test_the_docs_push_what_loads_by_its_name(lora_run):
    def run(code, home):
        environment = hub.environment(lora_run / home, "token-of-the-reader")
        command = [sys.executable, "-c", code]
        return run_program(command, cwd=lora_run, env=environment).stdout

    load = snippet("Load and merge") + "print(logits.tolist())"
    with HubServer(tokens={"token-of-the-reader": "your-name"}) as hub:
        expected = json.loads(run(load, "here"))
        run(snippet("Push"), "writer")
        assert all(hub.repos["model", f"your-name/{name}"].private for name in ("kept-base", "kept-lora"))
        files = hub.repos["model", "your-name/kept-lora"].files()
        assert {"adapter_model.safetensors", "adapter_config.json", "code_set.json"} <= set(files)
        assert json.loads(files["adapter_config.json"])["base_model_name_or_path"] == "your-name/kept-base"
        found = json.loads(run(load.replace("outputs/lora/adapter", "your-name/kept-lora"), "reader"))
    np.testing.assert_allclose(found, expected, atol=1e-6)
