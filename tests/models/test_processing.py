import inspect
import json
import logging
import random
import re

import numpy as np
import pytest
import torch
from tiny import CODES
from transformers import AutoProcessor, BatchEncoding

from kept_hf import ICDCodeSet, KeptLongformerForICDPrompting, KeptProcessor
from kept_hf.models import prompting
from kept_hf.models.padding import pad_features
from kept_hf.models.published import KEPT_50_PROMPT_ORDER

PRESET_NAMES = ("kept-50", "kept-rerank", "kept-50-exact", "kept-rerank-exact")
HEADERS = (
    "chief complaint:",
    "major surgical or invasive procedure:",
    "procedure:",
    "history of present illness:",
    "past medical history:",
    "brief hospital course:",
    "discharge diagnosis:",
    "discharge diagnoses:",
    "discharge condition:",
)


def naive_features(tokenizer, descriptions, note, preset, limit, stride):
    """The published layout, by the table of KEPT.md: one text, one call of the tokenizer."""
    mask = tokenizer.mask_token
    headers = HEADERS
    if preset.endswith("-exact"):
        headers, preset = [header.replace("medical", "eedical") for header in HEADERS], preset[: -len("-exact")]

    def clean(text):
        text = text.lower().replace("\n", " ")
        if preset == "kept-50":
            text = text.replace("\r", " ")
            for old, new in (("dr.", "doctor"), ("m.d.", "doctor"), ("admission date:", ""), ("discharge date:", "")):
                text = text.replace(old, new)
            text = re.sub("--|__|==", "", text)
        return re.sub(" {2,}", " ", text)

    def tokens(text):
        return tokenizer.tokenize(text)

    if preset == "kept-50":
        short, join = [d.lower().split(",")[0] for d in descriptions], ","
    else:
        short, join = [" ".join(d.lower().split()[:15]) for d in descriptions], ";"
    prompt = " " + f" {mask}{join} ".join(short) + f" {mask}. "
    note = re.sub(r"\[\*\*[^\]]*\*\*\]", "", note)
    if preset == "kept-50":
        too_long = len(tokens(prompt + clean(note))) > limit
    else:
        too_long = len(tokens(clean(note))) > limit - 150
    if too_long:
        sections, keep, found, low = [], False, 0, note.lower()
        for line in re.findall("[^\n]*\n|[^\n]+", low):
            if line.strip().endswith(":"):
                keep = line.strip() in headers
                found += keep
            sections.append((line, keep))
        if found > 1:
            note = "".join(line for line, keep in sections if keep)
    ids = tokenizer(prompt + clean(note), truncation=True, max_length=limit).input_ids
    global_attention = np.zeros(len(ids), dtype=int)
    global_attention[0 : len(tokens(prompt)) + 1 : stride] = 1
    if preset == "kept-rerank":
        global_attention[np.array(ids) == tokenizer.mask_token_id] = 1
    return ids, global_attention.tolist()


def random_note(generator, sentences):
    """Sections, tags, odd spaces, rules, titles."""
    words = [
        "fever",
        "cough",
        "sepsis",
        "stable",
        "Patient",
        "admitted",
        "Dr.",
        "M.D.",
        "yes",
        "no",
        "10:30",
        "kidney,",
        "failure.",
        "X-ray",
        "(a)",
        "é",
        "µg",
        "---",
        "__",
        "==",
    ]
    odd = [" ", " ", " ", "  ", "\n", "\t", "   \n", " \r\n", "\u00a0"]
    tags = ["[**2101-3-4**]", "[**Last Name (STitle) 12**]", "[**Hospital1**]", "[**a\nb**]"]
    headers = [h.title() for h in HEADERS] + ["Allergies:", "Social History:", "Medications:"]
    generator.shuffle(headers)
    parts = [generator.choice(["", "Admission Date:  [**2101-1-1**]   Discharge Date: [**2101-1-9**]\n"])]
    for _ in range(sentences):
        if generator.random() < 0.5 and headers:
            parts.append("\n" + headers.pop() + "\n")
        for _ in range(generator.randint(1, 8)):
            parts.append(generator.choice(tags) if generator.random() < 0.1 else generator.choice(words))
            parts.append(generator.choice(odd))
    return "".join(parts)


@pytest.mark.parametrize("stride", [1, 3])
@pytest.mark.parametrize("preset", PRESET_NAMES)
def test_published_layout(tokenizer, code_set, preset, stride):
    generator = random.Random(f"{preset}{stride}")
    cuts, described = [], [CODES[code] for code in code_set]
    for trial in range(60):
        note = random_note(generator, generator.randint(0, 40))
        limit = generator.choice([220, 300, 420, 700])
        processor = KeptProcessor(tokenizer, code_set, preset, limit, stride)
        ids, global_attention = naive_features(tokenizer, described, note, preset, limit, stride)
        features = processor(note, return_cut=True)
        assert features["input_ids"] == ids, trial
        assert features["global_attention_mask"] == global_attention, trial
        assert features["attention_mask"] == [1] * len(ids)
        assert features["input_ids"].count(tokenizer.mask_token_id) == len(code_set)
        cuts.append(features["cut"])
    assert set(cuts) == {0, 1, 2}, "whole notes, sections and cut ends all occurred"


@pytest.mark.parametrize("preset", PRESET_NAMES)
def test_published_layout_just_around_the_limit(tokenizer, code_set, preset):
    note = random_note(random.Random(5), 25)
    described = [CODES[code] for code in code_set]
    whole = len(naive_features(tokenizer, described, note, preset, 10_000, 1)[0])
    note_alone = whole - len(naive_features(tokenizer, described, "", preset, 10_000, 1)[0])
    centres = {whole, whole - 2, note_alone + 150}
    lengths = set()
    for limit in sorted({centre + step for centre in centres for step in range(-4, 5)}):
        features = KeptProcessor(tokenizer, code_set, preset, limit, 3)(note)
        ids, global_attention = naive_features(tokenizer, described, note, preset, limit, 3)
        assert features["input_ids"] == ids, limit
        assert features["global_attention_mask"] == global_attention, limit
        lengths.add(len(ids))
    assert len(lengths) > 1


@pytest.mark.parametrize(
    "note", ["", " ", "\n \t\r\n", "[**tag**]", ".", "yes", "  yes", "\tyes", "é", "\u200b", "\x00"]
)
@pytest.mark.parametrize("preset", PRESET_NAMES)
def test_published_layout_of_short_notes(tokenizer, code_set, preset, note):
    processor = KeptProcessor(tokenizer, code_set, preset, 400)
    ids, global_attention = naive_features(tokenizer, list(CODES.values()), note, preset, 400, 1)
    features = processor(note)
    assert features["input_ids"] == ids and features["global_attention_mask"] == global_attention


def test_descriptions_with_odd_spaces_and_one_code(tokenizer):
    code_set = ICDCodeSet(["401.9"], descriptions={"401.9": " Sepsis \n of  the\tkidney, unspecified"})
    ids, _ = naive_features(tokenizer, ["Sepsis of the kidney, unspecified"], "Fever", "kept-50", 100, 1)
    assert KeptProcessor(tokenizer, code_set, max_length=100)("Fever")["input_ids"] == ids


@pytest.mark.parametrize("preset", ["kept-50", "kept-rerank"])
def test_the_misspelt_header_is_kept_by_the_exact_presets_only(tokenizer, code_set, preset):
    note = "past medical history:\nmigraine\nprocedure:\nnone\nallergies:\n" + "penicillin " * 300
    found = {}
    for name in (preset, f"{preset}-exact"):
        ids = KeptProcessor(tokenizer, code_set, name, 420)(note)["input_ids"]
        found[name] = "migraine" in tokenizer.decode(ids), "penicillin" in tokenizer.decode(ids)
    # One section is not enough: the exact preset cuts the note's end instead.
    assert found == {preset: (True, False), f"{preset}-exact": (True, True)}
    note = "chief complaint:\nfever\n" + note
    ids = KeptProcessor(tokenizer, code_set, f"{preset}-exact", 420)(note)["input_ids"]
    assert "migraine" not in tokenizer.decode(ids) and "fever" in tokenizer.decode(ids)


@pytest.mark.parametrize("preset", ["kept-50", "kept-rerank"])
@pytest.mark.parametrize("described", [("40.7",), ("40.7", "990"), ("990", "V65.3"), ("40.7", "990", "V65.3")], ids=str)
def test_empty_descriptions_stay_empty_in_the_exact_presets(tokenizer, caplog, preset, described):
    codes = ["40.7", "990", "V65.3"]
    titles = {"40.7": "", "990": "Effects of  radiation, unspecified", "V65.3": "Dietary surveillance"}
    code_set = ICDCodeSet(codes, {code: titles[code] for code in described}, parents={"40.7": "40"})
    processor = KeptProcessor(tokenizer, code_set, f"{preset}-exact", 200, 3)
    with caplog.at_level(logging.WARNING):
        features = [processor("Nausea after radiation."), processor("Nausea after radiation.")]
    names = [titles[code] if code in described else "" for code in codes]
    ids, global_attention = naive_features(tokenizer, names, "Nausea after radiation.", f"{preset}-exact", 200, 3)
    for row in features:
        assert row["input_ids"] == ids
        assert row["global_attention_mask"] == global_attention
    assert caplog.text.count("have no description") == 1
    # The other presets ask about something.
    other = KeptProcessor(tokenizer, code_set, preset, 200)("")["input_ids"]
    assert "40.7" in tokenizer.decode(other).replace(" ", "")


@pytest.mark.parametrize("preset", ["kept-50", "kept-50-exact"])
def test_prompt_order(tokenizer, code_set, preset, tmp_path):
    order = sorted(code_set, key=lambda code: CODES[code])
    assert order != list(code_set)
    processor = KeptProcessor(tokenizer, code_set, preset, 400, 3, prompt_order=order)
    gold = [code_set.codes[0], code_set.codes[2]]
    features = processor("Fever", gold_codes=gold)
    ids, global_attention = naive_features(tokenizer, [CODES[code] for code in order], "Fever", preset, 400, 3)
    assert features["input_ids"] == ids
    assert features["global_attention_mask"] == global_attention
    # Mask i stands for code i of the code set, whatever the words before it.
    assert features["labels"] == code_set.multi_hot(gold)
    processor.save_pretrained(tmp_path)
    for loaded in (KeptProcessor.from_pretrained(tmp_path), AutoProcessor.from_pretrained(tmp_path)):
        assert loaded.prompt_order == order
        assert loaded("Fever")["input_ids"] == ids


def test_prompt_order_that_does_not_fit(roberta_tokenizer, code_set, tmp_path):
    order = list(code_set)[::-1]
    for wrong in (order[1:], [*order, order[0]], [*order[1:], "999.9"]):
        with pytest.raises(ValueError, match=rf"prompt_order has {len(wrong)} codes, the code set {len(code_set)}"):
            KeptProcessor(roberta_tokenizer, code_set, prompt_order=wrong)
    with pytest.raises(ValueError, match="codes_per_prompt=2 with prompt_order"):
        KeptProcessor(roberta_tokenizer, code_set, prompt_order=order, codes_per_prompt=2)
    processor = KeptProcessor(roberta_tokenizer, code_set, prompt_order=order)
    for codes in (order, order[:2], ICDCodeSet(["A00"])):
        with pytest.raises(ValueError, match="with prompt_order: the processor asks its whole code set"):
            processor("Fever", codes=codes)
    processor.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="prompt_order has"):
        KeptProcessor.from_pretrained(tmp_path, code_set=ICDCodeSet(["A00"]))


def test_kept_50_prompt_order():
    assert len(KEPT_50_PROMPT_ORDER) == len(set(KEPT_50_PROMPT_ORDER)) == 50
    # KEPT.md: no position agrees with the labels' order.
    assert not any(a == b for a, b in zip(KEPT_50_PROMPT_ORDER, sorted(KEPT_50_PROMPT_ORDER), strict=True))


def test_names_that_read_alike_are_reported_once(roberta_tokenizer, caplog):
    titles = {"250.00": "Diabetes mellitus, type II", "250.01": "Diabetes mellitus, type I", "486": "Pneumonia"}
    for preset, warned in (("kept-50", 1), ("kept-rerank", 0)):
        caplog.clear()
        processor = KeptProcessor(roberta_tokenizer, ICDCodeSet(list(titles), titles), preset)
        with caplog.at_level(logging.WARNING):
            processor(["Fever", "Cough"])
        assert caplog.text.count("2 of the 3 codes of a prompt share their name") == warned


def prompt_length(processor):
    """Tokens of the prompt with those around it, by the prompt of an empty note."""
    return len(processor("")["input_ids"])


def test_truncation_never_cuts_the_prompt(tokenizer, code_set):
    shortest = prompt_length(KeptProcessor(tokenizer, code_set, max_length=500))
    note = "fever " * 500
    whole = KeptProcessor(tokenizer, code_set, max_length=5000)(note)["input_ids"]
    for limit in range(shortest + 1, shortest + 6):
        features = KeptProcessor(tokenizer, code_set, max_length=limit)(note, return_cut=True)
        assert len(features["input_ids"]) == limit and features["cut"] == 2
        assert features["input_ids"] == [*whole[: limit - 1], tokenizer.sep_token_id]
        assert features["input_ids"].count(tokenizer.mask_token_id) == len(code_set)


def test_too_long_prompt(tokenizer, code_set):
    shortest = prompt_length(KeptProcessor(tokenizer, code_set, max_length=500))
    for limit in (10, shortest - 1, shortest):
        with pytest.raises(
            ValueError, match=rf"6 codes has {shortest - 2} tokens.* 2 special.*max_length={limit}\b"
        ) as e:
            KeptProcessor(tokenizer, code_set, max_length=limit)("fever")
        assert "codes_per_prompt=3" in str(e.value)
    assert KeptProcessor(tokenizer, code_set, max_length=shortest - 1, codes_per_prompt=3)("fever")["input_ids"]


@pytest.mark.parametrize("preset", ["kept-50", "kept-rerank"])
def test_codes_per_prompt(tokenizer, code_set, preset):
    processor = KeptProcessor(tokenizer, code_set, preset, 200, codes_per_prompt=4)
    assert processor.code_groups() == [list(CODES)[:4], list(CODES)[4:]]
    notes = ["Fever", "cough " * 300]
    features = processor(notes, gold_codes=[["401.9", "E888.9"], []])
    assert [len(value) for value in features.values()] == [4] * 4
    for row, (note, group) in enumerate((n, g) for n in notes for g in processor.code_groups()):
        ids, global_attention = naive_features(tokenizer, [CODES[c] for c in group], note, preset, 200, 1)
        assert features["input_ids"][row] == ids and features["global_attention_mask"][row] == global_attention
    assert features["labels"] == [[1, 0, 0, 0], [0, 1], [0, 0, 0, 0], [0, 0]]
    single = processor(notes[0])
    assert len(single["input_ids"]) == 2 and isinstance(single["input_ids"][0], list)


@pytest.mark.parametrize("as_tensor", [True, False])
def test_merge_logits(processor, as_tensor):
    processor.codes_per_prompt = 4
    scores = np.arange(12, dtype=np.float32).reshape(2, 6)
    rows = np.full((4, 4), -100.0, dtype=np.float32)
    rows[0], rows[1, :2], rows[2], rows[3, :2] = scores[0, :4], scores[0, 4:], scores[1, :4], scores[1, 4:]
    merged = processor.merge_logits(torch.tensor(rows, dtype=torch.bfloat16, requires_grad=True) if as_tensor else rows)
    assert merged.dtype == np.float32 and np.array_equal(merged, scores)
    assert np.array_equal(processor.merge_logits(rows[[0, 2]], codes=list(CODES)[:4]), scores[:, :4])
    with pytest.raises(ValueError, match=r"3 rows.* 2 prompts"):
        processor.merge_logits(rows[:3])


def test_merged_scores_of_a_model(tiny_model, processor):
    notes = ["fever and cough", "sepsis " * 20, "stable"]
    apart = KeptProcessor(processor.tokenizer, processor.code_set, max_length=200, codes_per_prompt=2)
    with torch.no_grad():
        merged = apart.merge_logits(tiny_model(**apart(notes, return_tensors="pt")).logits)
        for row, note in enumerate(notes):
            for start in (0, 2, 4):
                features = processor(note, codes=list(CODES)[start : start + 2], return_tensors="pt")
                expected = tiny_model(**features).logits[0]
                np.testing.assert_allclose(merged[row, start : start + 2], expected, rtol=1e-4, atol=1e-5)


def test_codes_as_list(processor):
    chosen = ["E888.9", "401.9"]
    ids, _ = naive_features(processor.tokenizer, [CODES[c] for c in chosen], "Fever", "kept-50", 200, 1)
    assert processor("Fever", codes=chosen)["input_ids"] == ids
    assert processor("Fever", codes=tuple(chosen))["input_ids"] == ids
    assert processor(["Fever", "Fever"], codes=chosen)["input_ids"] == [ids, ids]
    assert processor("Fever", codes=processor.code_set.subset(chosen))["input_ids"] == ids
    assert processor("Fever", codes=chosen, gold_codes=["401.9", "038.9"])["labels"] == [0, 1]


def test_codes_per_note(processor):
    asked = [["E888.9", "401.9"], ["038.9"], ["584.9", "401.9", "250.00"]]
    notes = ["Fever", "Cough", "Sepsis"]
    features = processor(notes, codes=asked, gold_codes=[["401.9"], ["401.9"], ["250.00", "584.9"]])
    for row, (note, codes) in enumerate(zip(notes, asked, strict=True)):
        assert features["input_ids"][row] == processor(note, codes=codes)["input_ids"]
    assert features["labels"] == [[0, 1], [0], [1, 0, 1]]
    with pytest.raises(ValueError, match=r"codes has 2 lists for 3 notes"):
        processor(notes, codes=asked[:2])


def test_codes_as_another_code_set(processor, roberta_tokenizer):
    other = ICDCodeSet(["I10", "N17.9"], {"I10": "Essential hypertension", "N17.9": "Acute kidney failure"})
    ids, _ = naive_features(roberta_tokenizer, list(other.descriptions.values()), "Fever", "kept-50", 200, 1)
    assert processor("Fever", codes=other, gold_codes=["N17.9"]).data == {
        "input_ids": ids,
        "attention_mask": [1] * len(ids),
        "global_attention_mask": processor("Fever", codes=other)["global_attention_mask"],
        "labels": [0, 1],
    }
    assert KeptProcessor(roberta_tokenizer, max_length=200)("Fever", codes=other)["input_ids"] == ids
    # The same code under another title is not taken from what was asked before.
    renamed = ICDCodeSet(["I10"], {"I10": "fever"})
    first = processor("x", codes=ICDCodeSet(["I10"], {"I10": "cough"}))["input_ids"]
    assert processor("x", codes=renamed)["input_ids"] != first


def test_code_without_description(roberta_tokenizer):
    code_set = ICDCodeSet(["401.9", "V99"], {"401.9": "Hypertension"})
    ids, _ = naive_features(roberta_tokenizer, ["Hypertension", "v99"], "Fever", "kept-50", 200, 1)
    assert KeptProcessor(roberta_tokenizer, code_set, max_length=200)("Fever")["input_ids"] == ids


def test_wrong_codes(processor, roberta_tokenizer):
    with pytest.raises(ValueError, match=r"'999\.9'.*1 in all.*ICDCodeSet"):
        processor("Fever", codes=["401.9", "999.9"])
    with pytest.raises(ValueError, match="no code set"):
        KeptProcessor(roberta_tokenizer)("Fever")


@pytest.mark.parametrize("codes_per_prompt", [None, 2])
@pytest.mark.parametrize("codes", [[], [["401.9"], []]], ids=str)
def test_no_codes_asked(roberta_tokenizer, code_set, codes_per_prompt, codes):
    processor = KeptProcessor(roberta_tokenizer, code_set, max_length=200, codes_per_prompt=codes_per_prompt)
    with pytest.raises(ValueError, match="codes"):
        processor(["Fever", "Cough"], codes=codes)


def test_codes_given_as_one_text(processor):
    with pytest.raises((TypeError, ValueError), match=r"codes='401\.9'|\['401\.9'\]"):
        processor("Fever", codes="401.9")


def test_labels(processor):
    assert processor("Fever", gold_codes=["584.9", "401.9", "not asked"])["labels"] == [1, 0, 1, 0, 0, 0]
    assert processor("Fever", gold_codes=[])["labels"] == [0] * 6
    assert "labels" not in processor("Fever")
    assert processor(["a", "b"], gold_codes=[{"401.9"}, ()])["labels"] == [[1, 0, 0, 0, 0, 0], [0] * 6]
    with pytest.raises(ValueError, match="gold_codes has 1 lists for 2 notes"):
        processor(["a", "b"], gold_codes=[["401.9"]])


def test_gold_codes_given_as_text_are_not_taken_letter_by_letter(processor):
    for text, gold in (("a", "401.9"), (["a", "b"], ["401.9", "038.9"])):
        with pytest.raises((TypeError, ValueError), match="gold_codes"):
            processor(text, gold_codes=gold)


@pytest.mark.parametrize("note", ["", " ", " \n\t "])
def test_empty_notes(processor, caplog, note):
    with caplog.at_level(logging.WARNING, logger="kept_hf"):
        features = processor(["Fever", note])
    assert "1 of 2 notes are empty" in caplog.text
    ids = features["input_ids"][1]
    assert ids.count(4) == 6 and ids[0] == 0 and ids[-1] == 2


def test_no_notes(processor):
    assert dict(processor([])) == {}


def test_very_long_note(processor, caplog):
    note = "fever and cough " * 66_667
    assert len(note.split()) > 200_000
    with caplog.at_level(logging.WARNING):
        features = processor(note)
    assert len(features["input_ids"]) == 200 and features["input_ids"].count(4) == 6
    messages = [record.getMessage() for record in caplog.records]
    assert messages == [
        "1 of 1 inputs were longer than max_length=200 tokens: 0 were reduced to their main sections, 1 lost their end."
    ]


@pytest.mark.parametrize("preset", ["kept-50", "kept-rerank"])
@pytest.mark.parametrize(
    "note",
    [
        "a {mask} b",
        "{mask}",
        "{mask}{mask} x",
        "{upper} x",
        "x {title} x",
        "a {split} b",
        "a {tagged} b",
        "a {ruled} b",
        "a {dated} b",
        "first {bos} then {eos} and {pad} last",
    ],
)
def test_special_tokens_in_a_note(tokenizer, code_set, preset, note):
    mask = tokenizer.mask_token
    note = note.format(
        mask=mask,
        upper=mask.upper(),
        title=mask.title(),
        split=mask[:3] + mask + mask[3:],
        tagged=mask[:3] + "[**x**]" + mask[3:],
        ruled=mask[:3] + "--" + mask[3:],
        dated=mask[:3] + "Admission Date:" + mask[3:],
        bos=tokenizer.cls_token,
        eos=tokenizer.sep_token,
        pad=tokenizer.pad_token,
    )
    ids = KeptProcessor(tokenizer, code_set, preset, 300)(note)["input_ids"]
    assert ids.count(tokenizer.mask_token_id) == len(code_set)
    assert ids.count(tokenizer.cls_token_id) == ids.count(tokenizer.sep_token_id) == 1
    assert tokenizer.pad_token_id not in ids


@pytest.mark.parametrize("spelling", [str, str.upper])
def test_mask_token_in_a_description(tokenizer, spelling):
    code_set = ICDCodeSet(["401.9", "038.9"], {"401.9": f"fever {spelling(tokenizer.mask_token)} cough", "038.9": "x"})
    ids = KeptProcessor(tokenizer, code_set, max_length=100)("Fever")["input_ids"]
    assert ids.count(tokenizer.mask_token_id) == 2


@pytest.mark.parametrize(
    "text", [None, 3, b"fever", {"text": "fever"}, ["fever", None], ["fever", float("nan")]], ids=str
)
def test_no_text(processor, text):
    with pytest.raises(TypeError):
        processor(text)


def test_no_text_message(processor):
    with pytest.raises(TypeError, match=r"text\[1\] is of type float"):
        processor(["fever", float("nan")])


@pytest.mark.parametrize("name", ["max_length", "global_attention_stride", "codes_per_prompt"])
@pytest.mark.parametrize("value", [0, -1])
def test_settings_below_one(roberta_tokenizer, code_set, name, value):
    with pytest.raises(ValueError, match=f"{name}={value}"):
        KeptProcessor(roberta_tokenizer, code_set, **{name: value})


def test_for_codes_keeps_every_other_setting(tokenizer, code_set):
    """By the constructor's own list of arguments, so that a new one cannot be forgotten."""
    order = list(code_set)[::-1]
    given = {"preset": "kept-rerank-exact", "max_length": 333, "global_attention_stride": 3, "chat_template": "{{ x }}"}
    others = {"tokenizer": tokenizer, "code_set": code_set, "codes_per_prompt": 5}
    default = KeptProcessor(tokenizer)
    names = set(inspect.signature(KeptProcessor.__init__).parameters) - {"self", "kwargs"} | {"chat_template"}
    elsewhere = {"prompt_order", "prompt_layout", "names_per_code"}
    assert names == {*given, *others, *elsewhere}, "give a new argument another value above"
    assert all(getattr(default, name) != value for name, value in given.items())
    processor = KeptProcessor(**given, **others)
    few = code_set.subset(["584.9", "401.9"])
    made = processor.for_codes(few)
    assert made.tokenizer is tokenizer and made.code_set is few
    assert {name: getattr(made, name) for name in given} == given
    assert (made.codes_per_prompt, made.prompt_order, made.prompt_layout) == (None, None, "joint")
    fresh = KeptProcessor(tokenizer, few, **{name: value for name, value in given.items() if name != "chat_template"})
    note = random_note(random.Random(3), 60)
    assert made(note, return_cut=True) == fresh(note, return_cut=True)
    assert made.config_overrides() == fresh.config_overrides()
    # The first one is as it was.
    assert processor.code_set is code_set and processor.codes_per_prompt == 5
    assert len(processor(note)["input_ids"]) == 2
    ordered = KeptProcessor(tokenizer, code_set, prompt_order=order).for_codes(code_set)
    assert ordered.prompt_order == order


def test_for_codes_in_other_prompts(roberta_tokenizer, code_set):
    processor = KeptProcessor(roberta_tokenizer, code_set, max_length=200)
    assert [len(group) for group in processor.for_codes(code_set, codes_per_prompt=4).code_groups()] == [4, 2]
    with pytest.raises(ValueError, match="codes_per_prompt=0 is less than 1"):
        processor.for_codes(code_set, codes_per_prompt=0)
    isolated = KeptProcessor(roberta_tokenizer, code_set, max_length=200, prompt_layout="isolated")
    assert isolated.for_codes(code_set.subset(["401.9"])).prompt_layout == "isolated"
    with pytest.raises(ValueError, match="codes_per_prompt with prompt_layout='isolated'"):
        isolated.for_codes(code_set, codes_per_prompt=2)
    ordered = KeptProcessor(roberta_tokenizer, code_set, prompt_order=list(code_set)[::-1])
    with pytest.raises(ValueError, match="prompt_order has 6 codes, the code set 1"):
        ordered.for_codes(code_set.subset(["401.9"]))


def test_the_end_of_the_prompt_is_written_in_one_place(tokenizer, code_set, monkeypatch):
    monkeypatch.setattr(prompting, "PROMPT_END", "; ")
    processor = KeptProcessor(tokenizer, code_set, max_length=300)
    text = prompting.prompt_text(list(CODES.values()), tokenizer.mask_token, prompting.get_preset("kept-50"))
    assert text.endswith("; ")
    assert processor("Fever")["input_ids"] == tokenizer(f"{text}fever").input_ids


def test_unknown_preset(roberta_tokenizer, code_set):
    with pytest.raises(ValueError, match="preset='kept-8' is unknown; pass one of kept-50, kept-50-exact"):
        KeptProcessor(roberta_tokenizer, code_set, preset="kept-8")


def reloaded(tokenizer, folder):
    tokenizer.save_pretrained(folder)
    return type(tokenizer).from_pretrained(folder)


def test_tokenizer_without_mask_token(tokenizer, code_set, tmp_path):
    copy = reloaded(tokenizer, tmp_path)
    copy.mask_token = None
    with pytest.raises(ValueError, match="has no mask token"):
        KeptProcessor(copy, code_set)


def test_tokenizer_without_the_answers(bert_tokenizer, code_set):
    vocabulary = {token: i for i, token in enumerate(t for t in bert_tokenizer.get_vocab() if t not in ("yes", "no"))}
    for word in ("yes", "no"):
        known = [*vocabulary, *({"yes", "no"} - {word})]
        smaller = type(bert_tokenizer)(vocab={token: i for i, token in enumerate(sorted(known))})
        with pytest.raises(ValueError, match=f"no single token for '{word}'"):
            KeptProcessor(smaller, code_set)


def test_config_overrides(tokenizer, code_set):
    processor = KeptProcessor(tokenizer, code_set, global_attention_stride=3)
    overrides = processor.config_overrides()
    assert overrides == {
        "yes_token_id": tokenizer("yes").input_ids[1],
        "no_token_id": tokenizer("no").input_ids[1],
        "mask_token_id": tokenizer.mask_token_id,
        "global_attention_stride": 3,
        "id2label": dict(enumerate(CODES)),
        "label2id": {code: index for index, code in enumerate(CODES)},
    }
    assert "id2label" not in KeptProcessor(tokenizer).config_overrides()


def test_config_overrides_make_a_model(tiny_model, tokenizer, code_set, tmp_path):
    tiny_model.save_pretrained(tmp_path)
    processor = KeptProcessor(tokenizer, code_set.subset(["038.9"]), global_attention_stride=2)
    model = KeptLongformerForICDPrompting.from_pretrained(tmp_path, **processor.config_overrides())
    assert model.config.id2label == {0: "038.9"} and model.config.num_labels == 1
    assert model.config.mask_token_id == tokenizer.mask_token_id and model.config.global_attention_stride == 2


SETTINGS = {"preset": "kept-rerank", "max_length": 333, "global_attention_stride": 3, "codes_per_prompt": 5}


def settings_of(processor):
    return {name: getattr(processor, name) for name in SETTINGS}


def test_save_and_load(tokenizer, code_set, tmp_path):
    processor = KeptProcessor(tokenizer, code_set, **SETTINGS)
    processor.save_pretrained(tmp_path)
    assert ICDCodeSet.from_json(tmp_path / "code_set.json") == code_set
    assert not any("Hypertension" in p.read_text() for p in tmp_path.glob("processor_config.json"))
    note = random_note(random.Random(1), 60)
    for again in (KeptProcessor.from_pretrained(tmp_path), KeptProcessor.from_pretrained(str(tmp_path))):
        assert settings_of(again) == SETTINGS and again.code_set == code_set
        assert type(again.tokenizer) is type(tokenizer)
        assert again(note) == processor(note)
        assert again.config_overrides() == processor.config_overrides()
    again.save_pretrained(tmp_path / "again")
    assert KeptProcessor.from_pretrained(tmp_path / "again")(note) == processor(note)


def test_auto_processor(tiny_model, code_set, roberta_tokenizer, tmp_path):
    processor = KeptProcessor(roberta_tokenizer, code_set, **SETTINGS)
    processor.save_pretrained(tmp_path / "alone")
    tiny_model.save_pretrained(tmp_path / "with model")
    processor.save_pretrained(tmp_path / "with model")
    for folder in ("alone", "with model"):
        again = AutoProcessor.from_pretrained(tmp_path / folder)
        assert type(again) is KeptProcessor and settings_of(again) == SETTINGS and again.code_set == code_set


@pytest.mark.parametrize("loader", [KeptProcessor, AutoProcessor])
def test_overriding_saved_settings(roberta_tokenizer, code_set, tmp_path, loader):
    KeptProcessor(roberta_tokenizer, code_set, **SETTINGS).save_pretrained(tmp_path)
    other = {"preset": "kept-50", "max_length": 222, "global_attention_stride": 1, "codes_per_prompt": None}
    again = loader.from_pretrained(tmp_path, **other)
    assert settings_of(again) == other
    fresh = KeptProcessor(roberta_tokenizer, code_set, **other)
    note = random_note(random.Random(2), 60)
    assert again(note) == fresh(note), "the preset too"
    part = code_set.subset(["584.9", "401.9"])
    again = loader.from_pretrained(tmp_path, code_set=part, max_length=99)
    assert again.code_set == part and again.max_length == 99 and again.preset == "kept-rerank"
    with pytest.raises(ValueError, match="preset='kept-8'"):
        loader.from_pretrained(tmp_path, preset="kept-8")


def test_save_without_code_set(roberta_tokenizer, tmp_path):
    KeptProcessor(roberta_tokenizer, max_length=99).save_pretrained(tmp_path)
    assert not (tmp_path / "code_set.json").exists()
    again = KeptProcessor.from_pretrained(tmp_path)
    assert again.code_set is None and again.max_length == 99


def test_saving_over_another_code_set(roberta_tokenizer, code_set, tmp_path):
    KeptProcessor(roberta_tokenizer, code_set).save_pretrained(tmp_path)
    KeptProcessor(roberta_tokenizer, code_set.subset(["401.9"])).save_pretrained(tmp_path)
    assert KeptProcessor.from_pretrained(tmp_path).code_set.codes == ("401.9",)


def test_saved_settings_are_plain_json(roberta_tokenizer, code_set, tmp_path):
    KeptProcessor(roberta_tokenizer, code_set, **SETTINGS).save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "processor_config.json").read_text())
    assert {name: saved[name] for name in SETTINGS} == SETTINGS and saved["processor_class"] == "KeptProcessor"
    assert "code_set" not in saved


@pytest.mark.parametrize("kind", ["pt", "np"])
def test_return_tensors(tokenizer, code_set, kind):
    processor = KeptProcessor(tokenizer, code_set, max_length=300)
    notes, gold = ["Fever", "cough and sepsis " * 5, ""], [["401.9"], [], ["038.9"]]
    rows = processor(notes, gold_codes=gold)
    batch = processor(notes, gold_codes=gold, return_tensors=kind)
    assert isinstance(batch, BatchEncoding)
    for name, fill in (
        ("input_ids", tokenizer.pad_token_id),
        ("attention_mask", 0),
        ("global_attention_mask", 0),
        ("labels", -100),
    ):
        value = batch[name]
        assert isinstance(value, torch.Tensor if kind == "pt" else np.ndarray)
        assert value.dtype == (torch.int64 if kind == "pt" else np.int64)
        longest = max(map(len, rows[name]))
        assert value.tolist() == [[*row, *[fill] * (longest - len(row))] for row in rows[name]]
    single = processor("Fever", return_tensors=kind)
    assert tuple(single["input_ids"].shape) == (1, len(rows["input_ids"][0]))
    assert tuple(processor("Fever", codes=["401.9"], gold_codes=[], return_tensors=kind)["labels"].shape) == (1, 1)


def test_return_cut(processor, caplog):
    sections = "Allergies:\n" + "none " * 300 + "\nChief Complaint:\nfever\nDischarge Diagnosis:\nsepsis\n"
    long_sections = sections + "cough " * 300
    notes = ["Fever", sections, "fever " * 300, long_sections]
    with caplog.at_level(logging.WARNING, logger="kept_hf"):
        assert processor(notes, return_cut=True)["cut"] == [0, 1, 2, 2]
        assert processor("Fever", return_cut=True)["cut"] == 0
        assert processor(notes, return_cut=True, return_tensors="pt")["cut"].tolist() == [0, 1, 2, 2]
        assert processor("fever " * 300, return_cut=True, return_tensors="np")["cut"].tolist() == [2]
    assert not caplog.records, "who asks for the column counts himself"
    with caplog.at_level(logging.WARNING, logger="kept_hf"):
        processor(notes)
    assert "3 of 4" in caplog.text and "1 were reduced" in caplog.text and "2 lost their end" in caplog.text
    text = processor.tokenizer.decode(processor(sections)["input_ids"])
    assert "none" not in text and "chief complaint: fever" in text and "discharge diagnosis: sepsis" in text


def test_notes_are_logged_by_number_only(processor, caplog):
    with caplog.at_level(logging.DEBUG):
        processor(["secretname " * 300, ""])
    assert caplog.records and "secretname" not in caplog.text


def test_pad_features():
    rows = [{"input_ids": [5, 6, 7], "labels": [1]}, {"input_ids": [8], "labels": [0, 1]}]
    batch = pad_features(rows, 9)
    assert batch["input_ids"].tolist() == [[5, 6, 7], [8, 9, 9]] and batch["labels"].tolist() == [[1, -100], [0, 1]]
    assert pad_features(rows, 9, 4)["input_ids"].shape == (2, 4) and pad_features(rows, 9, 4)["labels"].shape == (2, 2)
    assert pad_features(rows, 9, 3)["input_ids"].shape == (2, 3)


@pytest.fixture(params=PRESET_NAMES)
def isolated(request, tokenizer, code_set):
    return KeptProcessor(tokenizer, code_set, preset=request.param, max_length=60, prompt_layout="isolated")


def test_isolated_rows(isolated, tokenizer, code_set):
    notes = ["Fever\nand   cough [**2120-2-28**] today", "", "admitted with sepsis. " * 40]
    rows = isolated(notes, gold_codes=[["038.9"], [], ["401.9", "V45.81"]], return_cut=True)
    assert list(rows) == ["input_ids", "attention_mask", "code_indices", "labels", "cut"]
    first, last = tokenizer("yes").input_ids[::2]
    tokens = tokenizer("fever and cough today", add_special_tokens=False).input_ids
    assert rows["input_ids"][0] == [first, *tokens, last] and rows["input_ids"][1] == [first, last]
    assert len(rows["input_ids"][2]) == 60 and rows["input_ids"][2][-1] == last and rows["cut"] == [0, 0, 2]
    assert rows["code_indices"] == [list(range(6))] * 3
    assert rows["labels"] == [[0, 1, 0, 0, 0, 0], [0] * 6, [1, 0, 0, 1, 0, 0]]
    assert rows["attention_mask"] == [[1] * len(ids) for ids in rows["input_ids"]]
    some = isolated(notes[:2], codes=[["584.9"], ["250.00", "401.9"]])
    assert some["code_indices"] == [[2], [4, 0]]


def test_isolated_sections(isolated):
    sections = "Allergies:\n" + "none " * 60 + "\nChief Complaint:\nfever\nDischarge Diagnosis:\nsepsis\n"
    row = isolated(sections, return_cut=True)
    text = isolated.tokenizer.decode(row["input_ids"])
    assert row["cut"] == 1 and "none" not in text and "fever" in text and "sepsis" in text


def test_code_blocks(isolated, tokenizer, code_set):
    blocks = isolated.code_blocks()
    assert list(blocks) == list(code_set)
    first, last = tokenizer("yes").input_ids[::2]
    assert blocks["038.9"] == tokenizer("unspecified septicemia").input_ids[:-1], "as HSAP encodes a name"
    assert all(block[0] == first and last not in block for block in blocks.values())
    cut = "acute kidney failure" if "kept-50" in isolated.preset else "acute kidney failure, unspecified"
    assert blocks["584.9"] == tokenizer(cut).input_ids[:-1]
    assert isolated.code_blocks(["V45.81"]) == {"V45.81": blocks["V45.81"]}
    others = ICDCodeSet(["R50.9"], descriptions={"R50.9": f"Fever {tokenizer.mask_token} of"})
    assert tokenizer.mask_token_id not in isolated.code_blocks(others)["R50.9"]
    with pytest.raises(ValueError, match=r"'R50\.9'"):
        isolated.code_blocks(["R50.9"])


def test_isolated_batches_hold_each_block_once(isolated):
    blocks = isolated.code_blocks()
    rows = isolated(["fever", "cough and sepsis"], codes=[["250.00"], ["401.9", "250.00"]], gold_codes=[[], ["401.9"]])
    batch = isolated.pad([{name: values[row] for name, values in rows.items()} for row in range(2)])
    assert batch["code_indices"].tolist() == [[1, -100], [0, 1]] and batch["labels"].tolist() == [[0, -100], [1, 0]]
    asked = [
        ids[mask > 0].tolist() for ids, mask in zip(batch["code_input_ids"], batch["code_attention_mask"], strict=True)
    ]
    assert asked == [blocks["401.9"], blocks["250.00"]]
    same = isolated(
        ["fever", "cough and sepsis"],
        codes=[["250.00"], ["401.9", "250.00"]],
        gold_codes=[[], ["401.9"]],
        return_tensors="pt",
    )
    assert list(same) == list(batch) and all(torch.equal(same[name], batch[name]) for name in batch)


def test_isolated_with_another_code_set(isolated, tokenizer):
    others = ICDCodeSet(["R50.9", "R05"], descriptions={"R50.9": "Fever", "R05": "Cough"})
    batch = isolated("fever", codes=others, return_tensors="np")
    assert batch["code_input_ids"][1][batch["code_attention_mask"][1] > 0].tolist() == tokenizer("cough").input_ids[:-1]
    with pytest.raises(ValueError, match=r"another ICDCodeSet.*return_tensors='pt'"):
        isolated("fever", codes=others)


def test_isolated_scores_of_a_model(matching_model, matching_processor):
    processor = matching_processor
    notes = ["fever and cough", "sepsis " * 30, ""]
    with torch.no_grad():
        scores = processor.merge_logits(matching_model(**processor(notes, return_tensors="pt")).logits)
        codes = ["V45.81", "401.9"]
        some = matching_model(**processor(notes, codes=codes, return_tensors="pt")).logits
    assert scores.shape == (3, 6)
    np.testing.assert_allclose(processor.merge_logits(some, codes), scores[:, [3, 0]], atol=1e-5)
    cache = matching_model.encode_codes(processor.code_blocks())
    for row, note in enumerate(notes):
        ids = torch.tensor([processor(note)["input_ids"]])
        cached = matching_model.score(matching_model.encode_note(ids), cache, processor.code_blocks(codes))
        np.testing.assert_allclose(cached[0], scores[row, [3, 0]], atol=1e-5)


def test_models_of_the_other_layout(tiny_model, matching_model, processor, matching_processor):
    processor.check_model(tiny_model)
    matching_processor.check_model(matching_model)
    with pytest.raises(ValueError, match=r"does not fit KeptLongformerForICDMatching; pass .*layout='isolated'"):
        processor.check_model(matching_model)
    with pytest.raises(ValueError, match=r"'isolated' of the processor does not fit .*layout='joint'"):
        matching_processor.check_model(tiny_model)
    with pytest.raises(ValueError, match="code_input_ids=None"):
        matching_model(**processor("fever", return_tensors="pt"))
    with pytest.raises(ValueError, match="no mask token"):
        tiny_model(matching_processor("fever", return_tensors="pt")["input_ids"])


def test_isolated_settings(isolated, roberta_tokenizer, code_set, tmp_path):
    isolated.save_pretrained(tmp_path)
    assert KeptProcessor.from_pretrained(tmp_path).prompt_layout == "isolated"
    for setting in ({"codes_per_prompt": 3}, {"prompt_order": list(code_set)}):
        with pytest.raises(ValueError, match=f"{next(iter(setting))} with prompt_layout='isolated'"):
            KeptProcessor(roberta_tokenizer, code_set, prompt_layout="isolated", **setting)
    with pytest.raises(ValueError, match="prompt_layout='both' is unknown; pass one of joint, isolated"):
        KeptProcessor(roberta_tokenizer, code_set, prompt_layout="both")
