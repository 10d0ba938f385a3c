"""Each kind of run gets its card, and goes to the Hub under the licence of what it was made of."""

import importlib
import json
import re
import sys

import pytest
from hub_server import HubServer
from pretraining_results import RESULTS, hsap_results, mlm_results
from processes import run_program

from kept_hf import KeptLongformerForMaskedLM
from kept_hf.hub.cards import CARDS, make_card, stage_of
from kept_hf.hub.push import push_model
from kept_hf.hub.rendering import TEMPLATES
from kept_hf.models.publication import CREDENTIALED, UMLS, UNSTATED

OLD = ("hsap", "mlm", "zero-shot")
"""Stages whose first runs do not name theirs."""
SENTENCES = {
    "hsap": "pretrained further with HSAP",
    "mlm": "trained further as a masked language model",
    "zero-shot": "trained to answer KEPT prompts",
}


def write(folder, results):
    folder.mkdir(exist_ok=True)
    (folder / "all_results.json").write_text(json.dumps(results), encoding="utf-8")
    return folder


@pytest.mark.parametrize(("stage", "named"), [*((stage, True) for stage in CARDS), *((stage, False) for stage in OLD)])
def test_a_card_for_each_stage(tmp_path, stage, named):
    results = RESULTS[stage](**({"stage": stage} if named else {}))
    assert stage_of(results) == stage
    card = make_card(write(tmp_path, results), "me/model")
    assert SENTENCES[stage] in " ".join(card.text.split())
    assert card.data.model_name == "model" and card.data.library_name == "transformers"
    assert "/home" not in str(card) and "notes.jsonl" not in str(card)
    assert str(CARDS[stage](tmp_path, "me/model", results=results)) == str(card), "from memory as from the file"


@pytest.mark.parametrize("stage", CARDS)
def test_no_path_of_the_machine(tmp_path, stage):
    planted = "/home/jane doe/secret place"
    results = RESULTS[stage]()
    results["settings"] |= {
        "model_name_or_path": f"{planted}/weights",
        "zero_shot_codes": f"{planted}/codes.txt",
        "another": f"file={planted}/x",
        "windows": "C:\\Users\\jane doe\\y",
        "list": [f"{planted}/z", 1],
        "nested": {"a": (f"{planted}/z",)},
    }
    card = str(make_card(write(tmp_path, results), "me/model"))
    assert not re.search("jane|secret|/home|Users", card)
    assert "`another` file=x; `windows` y; `list` ['z', 1]" in card and "`zero_shot_codes` codes.txt" in card
    assert ("codes, `codes.txt`, whose" in card) == (stage == "zero-shot")


@pytest.mark.parametrize("stage", CARDS)
def test_a_licence_that_was_not_stated(tmp_path, stage):
    results = RESULTS[stage](data_license=UNSTATED, base_data_license=None)
    card = make_card(write(tmp_path, results), "me/model")
    text = " ".join(card.text.split())
    assert "It was made from notes whose licence was not stated by whoever trained on them: see Licence." in (
        text.replace("See Licence", "see Licence")
    )
    assert "may be passed on only as far as those notes may" in text and "one's own allows" not in text
    assert card.data.get("license_name") == "unstated" and UNSTATED not in text


@pytest.mark.parametrize("stage", CARDS)
def test_the_base_that_the_user_names(tmp_path, stage):
    folder = write(tmp_path, RESULTS[stage]())
    card = make_card(folder, "me/model", base_model="org/weights", base_license="mit")
    assert card.data.base_model == "org/weights"
    assert "\norg/weights, " in card.text and "Of the base weights: mit." in card.text
    with pytest.raises(ValueError, match="/tmp/x"):
        make_card(folder, base_model="/tmp/x")


@pytest.mark.parametrize("template", sorted(TEMPLATES.glob("*.md")), ids=lambda path: path.stem)
def test_what_the_cards_name_exists(template):
    """Modules and classes of this package that a card tells its reader to use."""
    text = template.read_text(encoding="utf-8")
    named = re.findall(r"from (kept_hf[\w.]*) import ([\w, ]+)", text)
    named += re.findall(r"`(kept_hf[\w.]*)\.([A-Z]\w*)", text)
    for module, names in named:
        for name in names.split(", "):
            assert hasattr(importlib.import_module(module), name), f"{module}.{name}"


def test_other_runs(tmp_path):
    assert stage_of({"settings": {"model_name_or_path": "x", "matching_examples": 3}}) is None
    with pytest.raises(ValueError, match="stage='distillation'; cards are known for hsap, mlm, zero-shot"):
        make_card(write(tmp_path, mlm_results(stage="distillation")))
    with pytest.raises(FileNotFoundError, match=r"has no all_results\.json; make the model with kept-hf train or"):
        make_card(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("stage", "key"),
    [("mlm", "held_out_notes"), ("mlm", "data_license"), ("hsap", "candidates"), ("zero-shot", "held_out_concepts")],
)
def test_results_of_an_older_version(tmp_path, stage, key):
    results = RESULTS[stage]()
    del results[key]
    message = f"has no '{key}', so it is of an older version; train again with .* pretrain {stage}"
    with pytest.raises(ValueError, match=message):
        make_card(write(tmp_path, results))


def test_results_without_a_model(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"has no config\.json, so it holds no finished model"):
        push_model(write(tmp_path, mlm_results()), "me/model")


PUSH = """
import sys
from kept_hf.hub.push import push_model
for folder in sys.argv[1:]:
    name = folder.rsplit("/", 1)[1]
    for private in (None, True):
        try:
            push_model(folder, f"your-name/{name}", private=private)
        except PermissionError as error:
            print(name, "refused", error)
        else:
            print(name, "private" if private else "public")
            break
"""


def test_pretrained_models_on_the_hub(tiny_config, roberta_tokenizer, tmp_path):
    """Restricted by the weights' configuration or by the results: refused in public, accepted in private."""
    runs = {stage: (None, make()) for stage, make in RESULTS.items()}
    runs["notes"] = (None, mlm_results(data_license=CREDENTIALED, stage="mlm"))
    runs["umls"] = (UMLS, hsap_results(sources=["umls"], stage="hsap"))
    runs["weights"] = (CREDENTIALED, mlm_results())
    for name, (license, results) in runs.items():
        folder = write(tmp_path / name, results)
        tiny_config.data_license = license
        KeptLongformerForMaskedLM(tiny_config).save_pretrained(folder)
        roberta_tokenizer.save_pretrained(folder)
        (folder / "settings.json").write_text("{}")
        (folder / "checkpoint-3").mkdir()
        (folder / "checkpoint-3" / "model.safetensors").write_bytes(b"")
    (tmp_path / "umls" / "linking.png").write_bytes(b"a picture")
    with HubServer(tokens={"token": "your-name"}) as hub:
        folders = [str(tmp_path / name) for name in runs]
        done = run_program([sys.executable, "-c", PUSH, *folders], env=hub.environment(tmp_path / "home", "token"))
        said = [line.split()[:2] for line in done.stdout.splitlines()]
        assert said[:3] == [[stage, "public"] for stage in RESULTS]
        assert said[3:] == [[name, word] for name in ("notes", "umls", "weights") for word in ("refused", "private")]
        for name in runs:
            repo = hub.repos["model", f"your-name/{name}"]
            files = repo.files()
            assert {"README.md", "config.json", "model.safetensors", "tokenizer.json"} <= set(files), name
            assert not [path for path in files if "/" in path or path in ("all_results.json", "settings.json")]
            assert repo.private == (name in ("notes", "umls", "weights"))
            stage = stage_of(runs[name][1])
            assert SENTENCES[stage] in " ".join(files["README.md"].decode().split())
            assert ("linking.png" in files) == (name == "umls")
        assert b"umls-metathesaurus" in hub.repos["model", "your-name/umls"].files()["README.md"]
