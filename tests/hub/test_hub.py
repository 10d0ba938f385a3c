"""Publishing to a Hub on loopback, as the README says, and what must never get there."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
import shutil
import sys
from pathlib import Path

import pytest
from hub_server import HubServer
from launching import launch
from processes import run_program
from without_package import MSMN_WITHOUT_PACKAGE, expect, load_without_package

from kept_hf import KeptLongformerForICDPrompting, KeptProcessor
from kept_hf.corpora.demo import write_demo_files
from kept_hf.models.publication import CREDENTIALED

ROOT = Path(__file__).parents[2]
MARKER = "zanzibar"
TOKEN, NAME = "token-of-the-reader", "your-name"


@pytest.fixture
def hub():
    with HubServer(tokens={TOKEN: NAME, "token-of-another": "another"}) as server:
        yield server


@pytest.fixture(scope="module")
def marked_run(train_arguments, tmp_path_factory) -> tuple[Path, Path, str]:
    """A trained model, the raw files of its notes, each with a marker, and what training printed."""
    raw, out = tmp_path_factory.mktemp("raw"), tmp_path_factory.mktemp("outputs") / "demo"
    write_demo_files(raw)
    table = raw / "NOTEEVENTS.csv"
    with open(table, encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    for row in rows:
        row[header.index("TEXT")] += f"\nSeen in {MARKER}."
    with open(table, "w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])
    result = launch(*train_arguments, "--data_dir", str(raw), "--matching_examples", "8", "--output_dir", str(out))
    return out, raw, result.stdout + result.stderr


@pytest.fixture
def run_folder(marked_run, tmp_path) -> Path:
    """A copy that a test may change."""
    return shutil.copytree(marked_run[0], tmp_path / "outputs" / "demo")


def client(hub, home, *command, token=TOKEN, check=True):
    """Run a Python program as a client of the Hub."""
    done = run_program([sys.executable, *command], check=check, env=hub.environment(home, token), cwd=ROOT)
    assert token is None or token not in done.stdout + done.stderr, "a token is never shown"
    return done


def push(hub, home, *arguments, **options):
    return client(hub, home, "-m", "kept_hf.commands.push", *arguments, **options)


def ids_of(raw: Path) -> set[str]:
    with open(raw / "NOTEEVENTS.csv", encoding="utf-8", newline="") as file:
        return {row[name] for row in csv.DictReader(file) for name in ("SUBJECT_ID", "HADM_ID")} - {""}


def readme(language: str) -> str:
    section = re.search(r"## Publish, and load anywhere\n(.*?)\n## ", (ROOT / "README.md").read_text("utf-8"), re.S)[1]
    return re.search(rf"```{language}\n(.*?)```", section, re.S)[1]


def test_the_commands_of_the_readme(hub, run_folder, marked_run, tmp_path):
    """From a trained model to one that a process without kept-hf loads from the Hub; no note gets out on the way."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    (tmp_path / "dataset_scripts").symlink_to(ROOT / "dataset_scripts")
    environment = {**hub.environment(tmp_path / "home"), "TOKEN": TOKEN}
    environment["PATH"] = os.path.dirname(sys.executable) + os.pathsep + environment["PATH"]
    done = run_program(["bash", "-euxc", readme("bash")], cwd=tmp_path, env=environment)
    printed = client(hub, tmp_path / "reader", "-c", readme("python")).stdout
    assert len(printed.splitlines()) == 3 and "%" in printed

    model = hub.repos["model", f"{NAME}/kept-demo"]
    assert model.private and hub.repos["dataset", f"{NAME}/demo-notes"].private
    assert not hub.repos["space", f"{NAME}/icd_coding"].private
    files = model.files()
    assert {"README.md", "config.json", "model.safetensors", "processor_config.json", "code_set.json"} <= set(files)
    assert {"modeling_kept_longformer.py", "pipeline_icd_coding.py", "f1_by_frequency.png"} <= set(files)
    assert not [name for name in files if name.endswith(("jsonl", "csv")) or "/" in name or "results" in name]
    out, raw, trained = marked_run
    assert MARKER in (raw / "NOTEEVENTS.csv").read_text("utf-8")
    texts = {name: content.decode("utf-8", "ignore") for name, content in files.items()}
    metric = hub.repos["space", f"{NAME}/icd_coding"].files()
    texts |= {f"metric/{name}": content.decode("utf-8", "ignore") for name, content in metric.items()}
    texts |= {"training": trained, "pushing": done.stdout + done.stderr}
    assert [name for name, text in texts.items() if MARKER in text.lower()] == []
    ids = ids_of(raw)
    for name, text in texts.items():
        if not name.endswith((".safetensors", ".png")):
            assert set(re.findall(r"(?<![\w.])\d{5,}(?![\w.])", text)) & ids == set(), name
    assert str(out.parent) not in "".join(texts[name] for name in files)


def test_a_process_without_the_package(hub, run_folder, tmp_path):
    push(hub, tmp_path / "home", "model", run_folder, f"{NAME}/kept")
    model = KeptLongformerForICDPrompting.from_pretrained(run_folder).eval()
    processor = KeptProcessor.from_pretrained(run_folder)
    environment = {**hub.variables(tmp_path / "reader"), "HF_HUB_OFFLINE": "0"}
    read = load_without_package(f"{NAME}/kept", tmp_path, environment=environment)
    expect(model, KeptProcessor.from_pretrained(run_folder), read, 1e-5)
    assert len(read["coded"]) == len(processor.code_set)
    sha = hub.repos["model", f"{NAME}/kept"].commit().sha
    assert (
        load_without_package(f"{NAME}/kept", tmp_path, environment=environment, revision=sha)["coded"] == read["coded"]
    )


def test_msmn_in_a_process_without_the_package(hub, msmn, tmp_path):
    program = """
import sys
from transformers import AutoModel, AutoTokenizer
import kept_hf
for auto in (AutoModel, AutoTokenizer):
    auto.from_pretrained(sys.argv[1]).push_to_hub(sys.argv[2], private=True)
"""
    saved, logits = msmn
    client(hub, tmp_path / "home", "-c", program, saved, f"{NAME}/msmn")
    environment = {**hub.variables(tmp_path / "reader", TOKEN), "HF_HUB_OFFLINE": "0"}
    read = load_without_package(f"{NAME}/msmn", tmp_path, environment=environment, script=MSMN_WITHOUT_PACKAGE)
    assert read["codes"] == ["I10", "A41.9"] and read["logits"][0][0] == pytest.approx(logits[0].tolist(), abs=1e-5)


def test_plain_push_to_hub(hub, run_folder, tmp_path):
    """Of the model and of the processor, as people know it from transformers."""
    program = """
import sys
from kept_hf import KeptLongformerForICDPrompting, KeptProcessor
KeptLongformerForICDPrompting.from_pretrained(sys.argv[1]).push_to_hub(sys.argv[2], private=True)
KeptProcessor.from_pretrained(sys.argv[1]).push_to_hub(sys.argv[2])
"""
    client(hub, tmp_path / "home", "-c", program, run_folder, f"{NAME}/plain")
    environment = {**hub.variables(tmp_path / "reader", TOKEN), "HF_HUB_OFFLINE": "0"}
    read = load_without_package(f"{NAME}/plain", tmp_path, environment=environment)
    expect(
        KeptLongformerForICDPrompting.from_pretrained(run_folder).eval(),
        KeptProcessor.from_pretrained(run_folder),
        read,
        1e-5,
    )


def test_private_repositories_and_bad_revisions(hub, run_folder, tmp_path):
    push(hub, tmp_path / "home", "model", run_folder, f"{NAME}/kept", "--private")
    program = """
import sys
from transformers import AutoModelForSequenceClassification
import kept_hf
AutoModelForSequenceClassification.from_pretrained(sys.argv[1], **eval(sys.argv[2]))
"""
    client(hub, tmp_path / "a", "-c", program, f"{NAME}/kept", "{}")
    for token, options, message in (
        ("token-of-another", "{}", "is not a valid model identifier|not found|not a local folder"),
        (None, "{}", "is not a valid model identifier|not found|not a local folder"),
        (TOKEN, "{'revision': 'no-such'}", "no-such is not a valid git identifier"),
    ):
        done = client(hub, tmp_path / "b", "-c", program, f"{NAME}/kept", options, token=token, check=False)
        assert done.returncode != 0 and re.search(message, done.stderr), done.stderr[-2000:]
    done = push(hub, tmp_path / "c", "model", run_folder, f"{NAME}/kept", token="token-of-another", check=False)
    assert done.returncode == 2 and "Traceback" not in done.stderr and "hf auth login" in done.stderr


def test_an_interrupted_upload_goes_on(hub, run_folder, tmp_path):
    KeptLongformerForICDPrompting.from_pretrained(run_folder).save_pretrained(run_folder, max_shard_size="10KB")
    shards = sorted(path.name for path in run_folder.glob("model-*.safetensors"))
    assert len(shards) > 2
    last = hashlib.sha256((run_folder / shards[-1]).read_bytes()).hexdigest()
    hub.fail_next(1, path_contains=last, method="PUT")
    done = push(hub, tmp_path / "home", "model", run_folder, f"{NAME}/kept", check=False)
    assert "Traceback" not in done.stderr and "start the command again" in done.stderr
    assert done.returncode != 0
    repo = hub.repos["model", f"{NAME}/kept"]
    assert "config.json" not in repo.files(), "nothing is published before all of it has arrived"
    arrived = set(repo.objects)
    assert arrived and last not in arrived
    hub.heal()
    start = len(hub.requests)
    push(hub, tmp_path / "home", "model", run_folder, f"{NAME}/kept")
    sent = [path for method, path in hub.requests[start:] if method == "PUT"]
    assert not [path for path in sent for sha in arrived if sha in path]
    assert len(sent) == len(repo.objects) - len(arrived) > 0
    assert set(shards) <= set(repo.files())


def credentialed(folder: Path) -> Path:
    results = json.loads((folder / "all_results.json").read_text("utf-8"))
    results["corpus"]["license"] = CREDENTIALED
    (folder / "all_results.json").write_text(json.dumps(results), encoding="utf-8")
    model = KeptLongformerForICDPrompting.from_pretrained(folder)
    model.config.data_license = CREDENTIALED
    model.save_pretrained(folder)
    return folder


def test_credentialed_models_stay_private(hub, run_folder, tmp_path):
    credentialed(run_folder)
    home = tmp_path / "home"
    done = push(hub, home, "model", run_folder, f"{NAME}/open", check=False)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "is a public repository, and this model comes from data under the PhysioNet" in done.stderr
    assert "private=True" in done.stderr and ("model", f"{NAME}/open") not in hub.repos
    push(hub, home, "model", run_folder, f"{NAME}/closed", "--private")
    push(hub, home, "model", run_folder, f"{NAME}/closed")  # it exists, and is private
    files = hub.repos["model", f"{NAME}/closed"].files()
    assert b"physionet-credentialed-1.5.0" in files["README.md"] and "f1_by_frequency.png" not in files
    push(hub, home, "model", run_folder, f"{NAME}/open", "--permitted_by", "Agreement 7 of 2026")
    assert not hub.repos["model", f"{NAME}/open"].private
    # Plain push_to_hub likewise, from the weights alone.
    program = """
import sys
from transformers import pipeline
from kept_hf import KeptLongformerForICDPrompting
model = KeptLongformerForICDPrompting.from_pretrained(sys.argv[1])
for push in (
    lambda: model.push_to_hub(sys.argv[2]),
    lambda: model.longformer.push_to_hub(sys.argv[2]),
    lambda: model.save_pretrained(sys.argv[3], push_to_hub=True, repo_id=sys.argv[2]),
    lambda: pipeline("icd-coding", model=sys.argv[1], device="cpu").push_to_hub(sys.argv[2]),
    lambda: model.push_to_hub("open", private=True),  # the reader's own, and public
):
    try:
        push()
    except PermissionError as error:
        print("refused", error.args[0][:60])
model.push_to_hub(sys.argv[2], private=True)
"""
    printed = client(hub, home, "-c", program, run_folder, f"{NAME}/third", tmp_path / "saved").stdout
    assert printed.count("refused") == 5 and hub.repos["model", f"{NAME}/third"].private


def test_credentialed_notes_stay_private(hub, marked_run, tmp_path):
    out, home = tmp_path / "parquet", tmp_path / "home"
    cache = ["--cache_dir", tmp_path / "cache"]
    client(hub, home, "dataset_scripts/mimic3.py", "--data_dir", marked_run[1], "--out", out, *cache)
    done = push(hub, home, "dataset", out, f"{NAME}/notes", check=False)
    assert done.returncode == 2 and "this dataset comes from data under the PhysioNet" in done.stderr
    assert MARKER not in done.stderr and not hub.repos
    push(hub, home, "dataset", out, f"{NAME}/notes", "--private")
    # Another corpus in the same folder: the card is the last one's, and so is what goes out.
    client(hub, home, "dataset_scripts/demo.py", "--out", out, *cache)
    assert (out / "full" / "train.parquet").exists()
    push(hub, home, "dataset", out, f"{NAME}/demo")
    assert {path.split("/")[0] for path in hub.repos["dataset", f"{NAME}/demo"].files()} <= {
        *(".gitattributes", "README.md", "all")
    }
    program = """
import sys
from kept_hf.corpora import load_corpus
from kept_hf.corpora.selection import select_codes
corpus = load_corpus("mimic3", sys.argv[1], sys.argv[2])
for dataset in (corpus.dataset, select_codes(corpus, "top50").dataset):
    try:
        dataset.push_to_hub(sys.argv[3])
    except PermissionError:
        print("refused")
corpus.dataset.push_to_hub(sys.argv[4], private=True)
"""
    done = client(hub, home, "-c", program, marked_run[1], tmp_path / "cache", f"{NAME}/open", f"{NAME}/closed")
    assert done.stdout.count("refused") == 2 and hub.repos["dataset", f"{NAME}/closed"].private
    assert ("dataset", f"{NAME}/open") not in hub.repos


def test_a_corpus_is_read_back(hub, tmp_path):
    out, home = tmp_path / "parquet", tmp_path / "home"
    client(
        hub, home, "dataset_scripts/demo.py", "--out", out, "--codes", "all", "rare50", "--cache_dir", tmp_path / "c"
    )
    (out / "predictions.jsonl").write_text("{}")
    push(hub, home, "dataset", out, f"{NAME}/demo-notes", "--private")
    assert "predictions.jsonl" not in hub.repos["dataset", f"{NAME}/demo-notes"].files()
    program = """
import sys
from datasets import load_dataset
print({split: len(rows) for split, rows in load_dataset(sys.argv[1], "rare50").items()}, len(load_dataset(sys.argv[1])))
"""
    printed = client(hub, tmp_path / "reader", "-c", program, f"{NAME}/demo-notes").stdout
    assert re.match(r"\{'train': \d+, 'validation': \d+, 'test': \d+\} 3", printed)


def test_the_metric_is_loaded_back(hub, tmp_path):
    push(hub, tmp_path / "home", "metric", "icd_coding", "--private")  # the owner is the token's
    assert hub.repos["space", f"{NAME}/icd_coding"].private
    program = """
import sys
import evaluate
metric = evaluate.load(sys.argv[1])
print(metric.compute(predictions=[[2.0, -1.0], [0.5, 3.0]], references=[[1, 0], [1, 1]], ks=[1])["auc_micro"])
"""
    assert client(hub, tmp_path / "reader", "-c", program, f"{NAME}/icd_coding").stdout.strip() == "1.0"
    done = push(hub, tmp_path / "home", "metric", f"{NAME}/my-metric", check=False)
    assert done.returncode == 2 and "must be called icd_coding" in done.stderr


def test_folders_that_hold_no_run(hub, tmp_path):
    for kind, message in (("model", "all_results.json"), ("dataset", "has no README.md")):
        done = push(hub, tmp_path / "home", kind, tmp_path, f"{NAME}/x", check=False)
        assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr
        done = push(hub, tmp_path / "home", kind, tmp_path / "nowhere", f"{NAME}/x", check=False)
        assert done.returncode == 2 and "is no folder" in done.stderr
    assert not hub.repos
