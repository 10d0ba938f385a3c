"""The stock Trainer and credentialed data: what it uploads where."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from datasets import Dataset, DatasetDict
from hub_server import HubServer
from huggingface_hub import HfApi
from processes import run_program

from kept_hf.corpora.restricted import CredentialedDatasetDict, RestrictedDataset
from kept_hf.models.publication import CREDENTIALED
from kept_hf.training.adapters import adapter_config, add_adapter, load_adapter, merged_model

# Every case in one process: the libraries read the server's address when they are imported.
PROGRAM = """
import sys
from peft import LoraConfig
from transformers import Trainer, TrainingArguments
from kept_hf import KeptLongformerForICDPrompting
from kept_hf.corpora.restricted import CredentialedDatasetDict
from kept_hf.models.publication import CREDENTIALED
from kept_hf.training import CheckPublication
from kept_hf.training.adapters import adapter_config, add_adapter, load_adapter
from datasets import Dataset, DatasetDict

base, out = sys.argv[1:]
rows = Dataset.from_dict({"input_ids": [[0, 5, 2]] * 2})

def model(license=CREDENTIALED):
    loaded = KeptLongformerForICDPrompting.from_pretrained(base)
    loaded.config.data_license = license
    return loaded

def trainer(model, name, rows=rows, **settings):
    arguments = TrainingArguments(f"{out}/{name}", report_to="none", use_cpu=True, max_steps=1, **settings)
    return Trainer(model, arguments, train_dataset=rows, callbacks=[CheckPublication()])

def adapted():
    return add_adapter(model(), adapter_config(), base)

def loaded():
    adapted().save_pretrained(f"{out}/adapter")
    return load_adapter(f"{out}/adapter")

notes = CredentialedDatasetDict(DatasetDict(train=rows))
refused = {
    "init": lambda: trainer(model(), "init", push_to_hub=True),
    "adapter": lambda: trainer(adapted(), "adapter", push_to_hub=True),
    "rows": lambda: trainer(model(None), "rows", notes["train"].map(), push_to_hub=True).train(),
    "later": lambda: trainer(model(), "later").push_to_hub(),
    "existing": lambda: trainer(model(), "init", push_to_hub=True, hub_private_repo=True),
    "peft": lambda: adapted().push_to_hub("peft"),
    "peft loaded": lambda: loaded().push_to_hub("peft"),
    "map": lambda: notes.map().push_to_hub("map"),
    "split": lambda: notes["train"].filter(lambda row: True).push_to_hub("split"),
}
for name, push in refused.items():
    try:
        push()
    except PermissionError as error:
        print(name, "|", error)
trainer(model(), "closed", hub_private_repo=True).push_to_hub()
trainer(model("cc-by-4.0"), "open").push_to_hub()
loaded().push_to_hub("closed-adapter", private=True)
notes["train"].map().push_to_hub("closed-notes", private=True)
"""


def test_what_reaches_the_hub(tiny_model, processor, tmp_path):
    tiny_model.save_pretrained(tmp_path / "base")
    processor.save_pretrained(tmp_path / "base")
    with HubServer({"token-of-alice": "alice"}) as hub:
        environment = hub.environment(tmp_path / "home", "token-of-alice")
        command = [sys.executable, "-c", PROGRAM, tmp_path / "base", tmp_path]
        printed = run_program(command, env=environment, cwd=tmp_path).stdout
        refusals = dict(line.split(" | ") for line in printed.splitlines() if " | " in line)
        assert list(refusals) == [
            *("init", "adapter", "rows", "later", "existing", "peft", "peft loaded", "map", "split"),
        ]
        assert (
            "repo_id='alice/init' is a public repository, and what the Trainer uploads comes from" in refusals["init"]
        )
        assert "Pass TrainingArguments(hub_private_repo=True)" in refusals["init"]
        private = {name for (_, name), repo in hub.repos.items() if repo.private}
        assert private == {"alice/closed", "alice/closed-adapter", "alice/closed-notes"}
        public = {name: set(repo.files()) - {".gitattributes"} for (_, name), repo in hub.repos.items()}
        assert {name for name, files in public.items() if files and name not in private} == {"alice/open"}
        assert b"physionet-credentialed-1.5.0" in hub.repos["model", "alice/closed-adapter"].files()["README.md"]


def test_an_adapter_folder_carries_the_licence(tiny_model, tmp_path):
    tiny_model.save_pretrained(tmp_path / "base")
    tiny_model.config.data_license = CREDENTIALED
    add_adapter(tiny_model, adapter_config(), tmp_path / "base").save_pretrained(tmp_path / "adapter")
    assert "license_name: physionet-credentialed-1.5.0" in Path(tmp_path, "adapter", "README.md").read_text()
    assert load_adapter(tmp_path / "adapter").config.data_license == CREDENTIALED
    assert merged_model(tmp_path / "adapter").config.data_license == CREDENTIALED


def test_what_is_made_of_restricted_notes_is_restricted(monkeypatch):
    monkeypatch.setattr(HfApi, "repo_info", lambda *_, **__: SimpleNamespace(private=False))
    plain = Dataset.from_dict({"text": list("abcdef")})
    splits = CredentialedDatasetDict(DatasetDict(train=plain, test=plain))
    assert plain.info.license != CREDENTIALED and type(plain) is Dataset
    for made in (splits.map(), splits.filter(lambda row: True), splits["train"].train_test_split(2)):
        assert type(made) is CredentialedDatasetDict
    rows = splits["train"]
    for made in (rows.select([0]), rows.map(lambda row: row), rows.shuffle(seed=0).with_format("numpy"), rows.take(2)):
        assert type(made) is RestrictedDataset and made.info.license == CREDENTIALED
    with pytest.raises(PermissionError, match="this dataset comes from data under the PhysioNet"):
        splits["train"].map(lambda row: row, remove_columns="text").push_to_hub("me/notes")
