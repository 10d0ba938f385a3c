"""Print the tables of the README and the docs from what is kept in `benchmarks/results`, or put them there.

python benchmarks/keep_run.py outputs/demo/all_results.json demo
python benchmarks/results_table.py --write
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import mean, median, stdev

from kept_hf.reports.tables import markdown_table

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
COLUMNS = {
    "f1_macro": "macro-F1 (CAML)",
    "f1_macro_per_code": "mean per-code F1",
    "f1_micro": "micro-F1",
    "auc_macro": "AUC macro",
    "auc_micro": "AUC micro",
}


OLD_COMMANDS = {
    "examples/pretrain_hsap.py": "kept-hf pretrain hsap",
    "examples/pretrain_mlm.py": "kept-hf pretrain mlm",
    "examples/pretrain_matching.py": "kept-hf pretrain zero-shot",
}
"""How older records name a command → how it is called now."""


def read_pretraining(stage: str, first: str = "") -> list[dict]:
    """The kept records of a pretraining stage, older ones with the names that their commands and keys have now.

    Args:
        stage: with which the names of the files begin.
        first: the name of the one that comes first; the others are sorted.
    """
    runs = []
    for path in sorted(RESULTS.glob(f"{stage}_*.json"), key=lambda path: (path.stem != first, path.stem)):
        text = path.read_text(encoding="utf-8").replace("withheld ", "held-out ").replace("withheld_", "held_out_")
        run = json.loads(text)
        program, _, options = run["command"].partition(" ")
        run["command"] = f"{OLD_COMMANDS.get(program, program)} {options}".rstrip()
        runs.append(run)
    return runs


def results_table() -> str:
    """Markdown: for each run the model and the codes' frequencies in training alone, in percent."""
    rows = []
    for path in sorted(RESULTS.glob("run_*.json")):
        run = json.loads(path.read_text(encoding="utf-8"))
        split = run["evaluated_on"]
        data = f"{run['settings']['corpus']}, {run['settings']['codes']}: {run['codes']} codes, "
        data += f"{run['notes'][split]} {split} notes"
        name = system_name(run["settings"])
        for system, prefix in (("training frequency", "frequency"), (name, split)):
            rows.append((data, system, *(f"{100 * run[f'{prefix}_{name}']:.1f}" for name in COLUMNS)))
    # Several runs on the same notes have the same row of frequencies.
    return markdown_table(list(dict.fromkeys(rows)), ["data", "system", *COLUMNS.values()])


def with_note(note: str, *tables: str) -> str:
    """Tables and the sentences below them."""
    return "\n\n".join([*tables, note])


def system_name(settings: dict) -> str:
    """What was trained, in a few words."""
    if "num_synonyms" in settings:
        from_names = settings.get("initialize_from_names", settings.get("start_as_matcher", False))
        return "MSMN" + ", initialized from names" * from_names
    name = "kept-hf"
    if settings.get("scorer") == "matching":
        name += ", late interaction"
    elif settings.get("prompt_layout") == "isolated":
        name += ", isolated layout" + " and similarity prior" * settings.get("similarity_prior", False)
    is_pretrained = settings["model_name_or_path"] in ("outputs/zero-shot", "outputs/matching")
    return name + ", zero-shot pretrained" * is_pretrained


def corpora_table() -> str:
    """Markdown: reading of generated notes, the public preprocessing's loop and ours."""
    report = json.loads((RESULTS / "corpora.json").read_text(encoding="utf-8"))
    columns = ["rows", "order", "file", "csv loop", "kept-hf", "times faster"]
    columns += ["peak memory, csv loop", "peak memory, kept-hf"]
    rows = []
    for run in report["measured"]:
        seconds = [f"{median(run['seconds'][name]):.2f} s" for name in ("csv loop", "kept_hf")]
        memory = [f"{run['peak_bytes'][name] / 1e6:.0f} MB" for name in ("csv loop", "kept_hf")]
        size = f"{run['file_bytes'] / 1e6:.0f} MB"
        rows.append([f"{run['rows']:,}", run["order"], size, *seconds, f"{run['ratio']:.1f}", *memory])
    cores, revision = report["cores"]["allowed"], report["versions"]["git"]
    note = f"{cores} cores, revision {revision}; medians of turns taken in one process."
    return with_note(note, markdown_table(rows, columns))


def adapters_table() -> str:
    """Markdown: what trains and what it costs, with all parameters, adapters and BitFit."""
    path = RESULTS / "adapters.json"
    if not path.exists():
        return "Not measured yet: `python benchmarks/bench_adapters.py`."
    report = json.loads(path.read_text(encoding="utf-8"))
    names = {
        "base": "none: the base",
        "full": "all parameters",
        "lora": "`--peft lora`",
        "lora+bias": "`--peft lora+bias`",
        "bitfit": "`--trainable bias,lm_head`",
    }
    metrics = ("f1_macro", "f1_micro", "auc_macro")
    columns = ["what trains on the notes", "learning rate", "parameters", "on the disk", "peak memory", "time"]
    rows = []
    for run in report["runs"]:
        cost = ["", "", ""]
        if run["trainable_parameters"]:
            size = f"{run['stored_bytes'] / 1e6:.1f} MB"
            cost = [f"{run['learning_rate']:g}", f"{run['trainable_parameters']:,}", size]
        spent = [f"{run['peak_memory_gb']:.1f} GB", f"{run['seconds']:.0f} s"]
        rows.append([names[run["method"]], *cost, *spent, *(f"{100 * run[name]:.1f}" for name in metrics)])
    split, notes = report["evaluated_on"], report["notes"]
    note = (
        f"{report['corpus']}: {report['codes']} codes, {notes['train']} training and {notes[split]} {split} notes; one "
        f"run each, seed {report['seed']}; {report['cores']['allowed']} cores, revision {report['versions']['git']}. "
        "The base's time is that of the synthetic prompts, which the others do not repeat."
    )
    return with_note(note, markdown_table(rows, columns + [COLUMNS[name] for name in metrics]))


def attention_table(device: str = "cpu") -> str:
    """Markdown: transformers' encoder and ours on one note, a padded batch, and the public recipe."""
    path = RESULTS / f"attention_{device}.json"
    if not path.exists():
        return f"Not measured yet: `python benchmarks/bench_attention.py --device {device}`."
    report = json.loads(path.read_text(encoding="utf-8"))
    columns = ["tokens", "precision", "pass", "allocator", "transformers", "kept-hf", "times faster"]
    columns += ["real tokens/s", "share of the matrix products' speed", "memory"]
    rows = []
    for run in sorted(report["lengths"], key=lambda run: (run["dtype"], run["mode"], run["allocator"], run["length"])):
        seconds = [f"{median(run['seconds'][side]):.2f} s" for side in ("stock", "kept_hf")]
        shares = " → ".join(f"{100 * run['share_of_peak'][side]:.0f}%" for side in ("stock", "kept_hf"))
        memory = " → ".join(f"{value:.2f}" for value in run["peak_gb"].values()) + " GB" if run["peak_gb"] else ""
        speed = f"{run['real_tokens_per_second']['kept_hf']:,.0f}"
        settings = [f"{run['length']:,}", run["dtype"], run["mode"], run["allocator"]]
        rows.append([*settings, *seconds, f"**{run['ratio']:.2f}**", speed, shares, memory])
    lengths = markdown_table(rows, columns)
    rows = []
    for run in report["padding"]:
        what = "half padding, against the notes one by one"
        rows.append([what, run["dtype"], run["mode"], f"{run['ratio']:.2f}"])
    for run in report["recipe"]:
        what = f"public recipe (padded to 8,192), notes of {mean(run['lengths']):,.0f} tokens in the mean"
        rows.append([what, run["dtype"], run["mode"], f"**{run['ratio']:.1f}**"])
    batches = markdown_table(rows, ["", "precision", "pass", "times as fast"])
    run, versions = report["lengths"][0], report["versions"]
    note = (
        f"{run['layers']} layers of base width, {run['globals']} global tokens, {report['device']}, "
        f"{report['cores']['allowed']} cores, torch {versions['torch']}, transformers {versions['transformers']}, "
        f"revision {versions['git']}; turns taken in one process. Memory is above the model's, in processes of its own."
    )
    return with_note(note, lengths, batches)


def late_interaction_table(device: str = "cpu") -> str:
    """Markdown: seconds, memory and training of late interaction beside those of joint prompts."""
    path = RESULTS / f"late_interaction_{device}.json"
    if not path.exists():
        return f"Not measured yet: `python benchmarks/bench_late_interaction.py --device {device}`."
    report = json.loads(path.read_text(encoding="utf-8"))
    settings, versions, seconds, names = (report[key] for key in ("settings", "versions", "seconds", "names"))
    rows = []
    for codes in sorted(int(key) for key in seconds if key.isdigit()):
        ours = [note + compared for note, compared in zip(seconds["note"], seconds[str(codes)], strict=True)]
        groups, cells = -(-codes // settings["group"]), []
        for side in ("prompts, ours", "prompts, stock"):
            times = [groups * took / own for took, own in zip(seconds[side], ours, strict=True)]
            cells += [f"{groups * median(seconds[side]):,.0f} s", f"**{median(times):.1f}**"]
        rows.append([f"{codes:,}", f"{median(seconds['note']):.1f} + {median(seconds[str(codes)]):.2f} s", *cells])
    columns = ["codes", "late interaction: note + comparing", "prompts, our encoder", "times as long"]
    columns += ["prompts, transformers", "times as long"]
    steps = "; ".join(f"{codes} codes {median(took):.1f} s" for codes, took in report["training"].items())
    note = (
        f"Encoding the names of {names['codes']:,} codes, once: {names['seconds']:.0f} s; the cache has "
        f"{names['cache_bytes'] / 1e6:.0f} MB. Peak memory beyond the model: {names['encoding_bytes'] / 1e6:.0f} MB to "
        f"encode them, {names['scoring_bytes'] / 1e6:.0f} MB to score a note. A training step with one note: {steps}.\n"
        "\n"
        f"{settings['layers']} layers of base width, a note of {settings['length']:,} tokens, names of "
        f"{settings['name']}, joint groups of {settings['group']} codes (one is timed a turn and multiplied), "
        f"{report['device']}, {report['cores']['allowed']} core(s), torch {versions['torch']}, transformers "
        f"{versions['transformers']}, revision {versions['git']}; {report['clock']} time, medians over "
        f"{len(seconds['note'])} turns taken in one process."
    )
    return with_note(note, markdown_table(rows, columns))


def hsap_table() -> str:
    """Markdown: names linked to their concept, before HSAP and after each kept run."""
    runs = read_pretraining("hsap", first="hsap_open_terms")
    if not runs:
        return "Not measured yet: `kept-hf pretrain hsap`."
    names = {
        "held_out_synonym_accuracy_at_1": "held-out synonyms @1",
        "held_out_synonym_accuracy_at_5": "@5",
        "trained_abbreviation_accuracy_at_1": "trained abbreviations @1",
        "trained_abbreviation_accuracy_at_5": "@5",
        "held_out_abbreviation_accuracy_at_1": "held-out abbreviations @1",
        "tree_distance_correlation": "rank correlation",
    }
    measured = [("the initial weights", 0, runs[0]["before"])]
    measured += [(f"`{run['command']}`", run["steps"], run["after"]) for run in runs]
    rows = [[name, steps, *(metrics[key] for key in names)] for name, steps, metrics in measured]
    run, revisions = runs[0], dict.fromkeys(run["versions"]["git"] for run in runs)
    note = (
        f"{run['candidates']:,} names of {run['candidate_concepts']:,} concepts to link to; {run['names_per_step']} "
        f"names a step; the first run had {run['training_seconds'] / 60:.0f} minutes on {run['cores']} cores, "
        f"the others as many steps; one seed; revisions {', '.join(revisions)}."
    )
    return with_note(note, markdown_table(rows, ["run", "steps", *names.values()]))


def mlm_table() -> str:
    """Markdown: masked tokens of held-out notes, before and after each kept run."""
    runs = read_pretraining("mlm")
    if not runs:
        return "Not measured yet: `kept-hf pretrain mlm`."
    names = {
        "masked_loss": "loss",
        "perplexity": "perplexity",
        "accuracy": "accuracy",
        "accuracy_repeated": "rarer, elsewhere too",
        "accuracy_new": "rarer, nowhere else",
        "accuracy_common": "common",
    }
    rows = []
    for run in runs:
        for name, steps, when in ((f"before `{run['command']}`", 0, "before"), ("after", run["steps"], "after")):
            values = [f"{run[when][key]:,.{3 if key != 'perplexity' else 1}f}" for key in names]
            rows.append([name, steps, *values])
    run = runs[0]
    note = (
        f"{run['held_out_notes']} held-out notes, {sum(run['masked_tokens'].values()):,} masked tokens; blocks a step: "
        f"{run['rows_per_step']}; {run['training_seconds'] / 60:.0f} minutes, one seed, CPU cores: {run['cores']}, "
        f"revision {run['versions']['git']}."
    )
    return with_note(note, markdown_table(rows, ["run", "steps", *names.values()]))


def zero_shot_table() -> str:
    """Markdown: answers to prompts, before and after each kept run."""
    runs = read_pretraining("zero_shot")
    if not runs:
        return "Not measured yet: `kept-hf pretrain zero-shot`."
    parts = []
    for run in runs:
        rows = [[row[""], row["before"], row["after"]] for row in run["table"]]
        notes = f"; {run['zero_shot_notes']} validation notes, {run['zero_shot_codes']} codes" * bool(
            run["zero_shot_notes"]
        )
        machine = f"{run['device']}, cores: {run['cores']}"
        note = (
            f"{run['steps']} steps of {run['settings']['tokens_per_item'] * run['rows_per_step']:,} tokens in "
            f"{run['training_seconds'] / 60:.0f} minutes, {machine}{notes}; one seed, revision "
            f"{run['versions']['git']}."
        )
        parts.append(with_note(note, f"`{run['command']}`", markdown_table(rows, ["", "before", "after"])))
    return "\n\n".join(parts)


def retrieval_table() -> str:
    """Markdown: the candidates of first stages without training, and their F1 on rare codes."""
    path = RESULTS / "retrieval.json"
    if not path.exists():
        return "Not measured yet: `python benchmarks/bench_retrieval.py path/to/codiesp`."
    report = json.loads(path.read_text(encoding="utf-8"))
    columns = {
        "candidate_recall_at_50": "recall at 50",
        "candidate_recall_at_100": "at 100",
        "candidate_recall_at_300": "at 300",
        "oracle_f1_micro_at_50": "ceiling of micro-F1 at 50",
        "oracle_f1_micro_at_300": "at 300",
        "map": "MAP",
        "unseen_recall_at_50": "unseen, recall at 50",
        "unseen_recall_at_300": "at 300",
    }
    rare = {"f1_macro": "rare50: macro-F1", "f1_micro": "micro-F1", "map": "MAP"}
    rows = []
    for row, rare_row in zip(report["all"]["systems"], report["rare50"]["systems"], strict=True):
        values = [100 * row[name] for name in columns] + [100 * rare_row[name] for name in rare]
        rows.append([row["system"], *values])
    notes, versions = report["notes"], report["versions"]
    note = (
        f"{report['codes']['all']:,} codes, {notes['all']['train']} training and {notes['all']['validation']} "
        f"validation notes; rare50: {notes['rare50']['train']} and {notes['rare50']['validation']}. Weights and "
        f"thresholds are those of the other half of the validation notes. Encoder: {report['model']}; scikit-learn "
        f"{versions['scikit-learn']}, revision {versions['git']}."
    )
    return with_note(note, markdown_table(rows, ["system", *columns.values(), *rare.values()], digits=1))


def msmn_table() -> str:
    """Markdown: peak memory and time of a training step, with the codes in chunks and all at once."""
    path = RESULTS / "msmn.json"
    if not path.exists():
        return "Not measured yet: `python benchmarks/bench_msmn.py`."
    report = json.loads(path.read_text(encoding="utf-8"))
    rows = []
    for run in report["runs"]:
        spent = ["out of memory", ""]
        if "out_of_memory" not in run:
            spent = [f"{run['peak_gb']:.2f} GB", f"{run['seconds']:.0f} s"]
        rows.append([run["chunk"] or "all", *spent])
    versions = report["versions"]
    note = (
        f"{report['notes']} notes of {report['words']:,} words, each read twice, {report['codes']:,} codes of "
        f"{report['synonyms']} terms, {report['gpu'] or report['device']}, {report['cores']['allowed']} cores, torch "
        f"{versions['torch']}, revision {versions['git']}."
    )
    return with_note(note, markdown_table(rows, ["codes at a time", "peak memory above the model", "time of a step"]))


CANDIDATES = {
    f"{name}_at_{k}": f"{title} at {k}" if k == 50 else f"at {k}"
    for name, title in (("candidate_recall", "recall"), ("oracle_f1_micro", "ceiling of micro-F1"))
    for k in (50, 100, 300)
}
TWO_STAGES = {
    "map": "MAP",
    "f1_micro": "micro-F1",
    "f1_macro": "macro-F1 (CAML)",
    "f1_macro_per_code": "mean per-code F1",
    "precision_at_8": "P@8",
    "precision_at_15": "P@15",
}


def reranking_table() -> str:
    """Markdown: the candidates of first stages, both stages by metric, and by how often a code occurs in training."""
    reports = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob("rerank_*.json"))]
    if not reports:
        return "Not measured yet: `kept-hf rerank`."
    rows = []
    for row in {row["first stage"]: row for report in reports for row in report["candidates"]}.values():
        rows.append([row["first stage"], *(f"{100 * row[name]:.1f}" if name in row else "" for name in CANDIDATES)])
    candidates = markdown_table(rows, ["first stage", *CANDIDATES.values()])
    return "\n\n".join([candidates, *map(_two_stages, reports)])


def _two_stages(report: dict) -> str:
    """The tables of one run of `kept-hf rerank`."""
    first = report["candidates"][0]["first stage"]
    rows = []
    alone = mean(run["metrics"]["f1_macro"] for run in report["runs"][first])
    lifts = []
    for system, runs in report["runs"].items():
        values = []
        for name in TWO_STAGES:
            percents = [100 * run["metrics"][name] for run in runs]
            spread = f" ± {stdev(percents):.1f}" if len(percents) > 1 else ""
            values.append(f"{mean(percents):.1f}{spread}")
        rows.append([system, *values])
        if system.endswith(f" on {first}") or system.startswith(f"{first} + "):
            lifts.append(f"{system} {100 * (mean(run['metrics']['f1_macro'] for run in runs) / alone - 1):+.1f}%")
    names = [name for name in report["bands"][0] if name not in ("train_notes", "codes", "gold_notes")]
    systems, rows = markdown_table(rows, ["system", *TWO_STAGES.values()]), []
    for row in report["bands"]:
        values = ["" if row[name] is None else f"{100 * row[name]:.1f}" for name in names]
        rows.append([row["train_notes"], f"{row['codes']:,}", *values])
    bands = markdown_table(rows, ["notes in training", "codes", *names])
    seeds, notes, versions = max(map(len, report["runs"].values())), report["notes"], report["versions"]
    split, top_k = report["evaluated_on"], report["settings"]["top_k"]
    means = f"; means of {seeds} seeds ± their standard deviation" * (seeds > 1)
    note = (
        f"Macro-F1 against {first} alone: {', '.join(lifts)} (published, over MSMN on MIMIC-III: +14.5%). "
        f"`{report['command']}`: {report['codes']:,} codes, {notes['train']} training and {notes[split]} {split} "
        f"notes, {top_k} candidates a note{means}; thresholds and weights tuned on "
        f"{report['thresholds_and_weights_tuned_on']}; torch {versions['torch']}, transformers "
        f"{versions['transformers']}, revision {versions['git']}."
    )
    return with_note(note, f"**Candidates of {first}**", systems, bands)


def demo_table() -> str:
    """Markdown: the demo's recipes over several seeds, and by how a note mentions a code."""
    path = RESULTS / "demo_seeds.json"
    if not path.exists():
        return "Not measured yet: `python benchmarks/bench_demo.py`."
    recipes = json.loads(path.read_text(encoding="utf-8"))
    rows, by_mention = [], {}
    for recipe, runs in recipes.items():
        values = []
        for name in ("f1_macro", "f1_micro", "auc_macro", "map"):
            percents = [100 * run[name] for run in runs]
            spread = f" ± {stdev(percents):.1f} (from {min(percents):.1f})" if len(runs) > 1 else ""
            values.append(f"{mean(percents):.1f}{spread}")
        wrong = max(run["readme_note"]["wrong"] for run in runs)
        spent = [
            f"{max(run['seconds'] for run in runs) / 60:.1f}",
            f"{max(run['peak_memory_gb'] for run in runs):.1f} GB",
        ]
        rows.append([f"`kept-hf train {recipe}`", len(runs), *values, f"{100 * wrong:.0f}%", *spent])
        for run in runs:
            for row in run["assigned_by_mention"]:
                key = (row["mention"], "yes" if row["gold"] else "no")
                by_mention.setdefault(key, {}).setdefault(recipe, []).append(100 * row["assigned"])
    header = ["recipe", "seeds", "macro-F1 (CAML)", "micro-F1", "AUC macro", "MAP"]
    header += ["most probable wrong code of the README's note", "minutes, at most", "peak memory"]
    mentions = [
        [*key, *(f"{mean(found[recipe]):.1f}" if recipe in found else "–" for recipe in recipes)]
        for key, found in sorted(by_mention.items(), key=lambda item: (item[0][1] == "no", item[0]))
    ]
    runs = [run for runs in recipes.values() for run in runs]
    revisions = ", ".join(sorted({run["versions"]["git"] for run in runs}))
    cores = " or ".join(sorted({str(run["cores"]) for run in runs}))
    note = (
        f"{runs[0]['notes']['test']} test notes, {runs[0]['codes']} codes; epoch and threshold from the validation "
        f"notes; cores: {cores}, beside other work; revisions {revisions}."
    )
    return with_note(
        note,
        markdown_table(rows, header),
        markdown_table(mentions, ["mention", "applies", *(f"assigned by {recipe}, percent" for recipe in recipes)]),
    )


def trials_table() -> str:
    """Markdown: what late interaction was tried with, epoch by epoch."""
    report = json.loads((RESULTS / "trials_late_interaction.json").read_text(encoding="utf-8"))
    metrics = {
        "map": "MAP",
        "f1_micro": "micro-F1",
        "f1_of_codes_with_training_notes": "F1 of codes with training notes",
        "f1_of_codes_without": "without",
    }
    rows = []
    for trial in report["trials"]:
        cells = [" → ".join(f"{100 * epoch[name]:.1f}" for epoch in trial["epochs"]) for name in metrics]
        rows.append([trial["title"], *cells])
    settings = report["settings"]
    note = f"After each epoch; {settings['threads']} core, seed {settings['seed']}; {report['note']}."
    return with_note(note, markdown_table(rows, ["trial", *metrics.values()]))


def reading_table() -> str:
    """Markdown: the trial of blocks that read the note, after its last epoch."""
    report = json.loads((RESULTS / "trial_reading_blocks.json").read_text(encoding="utf-8"))
    control, reading, weights = report["control"], report["reading"], report["weights_after_epoch_2"]

    def cells(*measured: dict) -> list[str]:
        return [", ".join(f"{100 * one[name]:.1f}" for one in measured) for name in ("map", "f1_micro")]

    def minutes(epoch: dict) -> str:
        return f"{epoch['seconds'] / 60:.0f}"

    last = reading[-1]
    rows = [
        ["at the start", *cells(control[0]), ""],
        ["control: late interaction on the same codes", *cells(control[-1]), minutes(control[-1])],
        ["with reading: its similarity alone", *cells(last["similarity"]), ""],
        [f"with reading: by the learnt gate, {last['gate']:.2f}", *cells(last["with_gate"]), minutes(last)],
        [f"with reading: by {', '.join(weights)} in place of the gate", *cells(*weights.values()), ""],
    ]
    return markdown_table(rows, ["after two epochs", "MAP", "micro-F1", "minutes"])


def load_table() -> str:
    """Markdown: time and memory of each step for so many notes, and of the metrics of a large score matrix."""
    path = RESULTS / "load.json"
    if not path.exists():
        return "Not measured yet: `python benchmarks/bench_load.py`."
    report = json.loads(path.read_text(encoding="utf-8"))
    names = list(next(iter(report["notes"].values())))
    rows = [
        [
            f"{int(notes):,}",
            *(f"{steps[name]['seconds']:,.1f} s, {steps[name]['bytes'] / 1e6:,.0f} MB" for name in names),
        ]
        for notes, steps in report["notes"].items()
    ]
    matrix = report["matrix"]
    shape = " × ".join(f"{size:,}" for size in matrix["shape"])
    note = (
        f"Metrics of {shape} scores: {matrix['seconds']:.0f} s, and {matrix['bytes'] / matrix['matrix_bytes']:.2f} "
        f"times the memory of the scores themselves ({matrix['matrix_bytes'] / 1e9:.2f} GB).\n"
        "\n"
        f"Steps on one thread, each number of notes in a process of its own, beside other work; "
        f"{report['cores']['allowed']} cores, revision {report['versions']['git']}."
    )
    return with_note(note, markdown_table(rows, ["notes", *names]))


TABLES = {
    ("docs/benchmarks.md", "load"): load_table,
    ("docs/benchmarks.md", "results"): results_table,
    ("docs/benchmarks.md", "reading"): reading_table,
    ("docs/benchmarks.md", "trials"): trials_table,
    ("docs/benchmarks.md", "demo"): demo_table,
    ("docs/mimic.md", "corpora"): corpora_table,
    ("docs/adapters.md", "adapters"): adapters_table,
    ("docs/attention.md", "attention"): attention_table,
    ("docs/late_interaction.md", "late_interaction"): late_interaction_table,
    ("docs/hsap.md", "hsap"): hsap_table,
    ("docs/mlm.md", "mlm"): mlm_table,
    ("docs/msmn.md", "msmn"): msmn_table,
    ("docs/zero_shot.md", "zero_shot"): zero_shot_table,
    ("docs/retrieval.md", "retrieval"): retrieval_table,
    ("docs/reranking.md", "reranking"): reranking_table,
}
"""File and name of the place in it → the table."""


def put_into(path: Path, name: str, table: str, command: str = "benchmarks/results_table.py --write") -> None:
    """Replace the table between the two comments of a file that bear its name.

    Raises:
        ValueError: the file has no such comments.
    """
    begin, end = f"<!-- {name}: {command} -->", f"<!-- end of {name} -->"
    text = path.read_text(encoding="utf-8")
    if begin not in text or end not in text:
        raise ValueError(f"{path.name} lacks the comments {begin} and {end}.")
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(end)
    path.write_text(f"{before}{begin}\n{table}\n{end}{after}", encoding="utf-8")


def main() -> None:
    """Print the tables; with --write, replace those in the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="replace the tables in the README and the docs")
    write = parser.parse_args().write
    for (file, name), table in TABLES.items():
        print(f"{file}:\n{table()}\n")
        if write:
            put_into(ROOT / file, name, table())


if __name__ == "__main__":
    main()
