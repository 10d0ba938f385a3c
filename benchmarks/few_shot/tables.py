"""Print the tables of docs/benchmarks.md and the README from what is kept, or put them and the picture there.

python -m benchmarks.few_shot.tables --write
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from statistics import mean, stdev
from textwrap import fill

from matplotlib.patches import Patch

from kept_hf.reports.figures import COLORS, new_figure
from kept_hf.reports.tables import markdown_table

from ..provenance import RESULTS
from ..results_table import ROOT, put_into
from . import protocol
from .bootstrap import compare
from .run import Row, read_row, row_names

DOCUMENT = "docs/benchmarks.md"
RUN, COMMAND = "python -m benchmarks.few_shot.run", "python -m benchmarks.few_shot.tables --write"
RARE = ("rare50-1", "rare50-2", "rare50-3")
BANDS = {f"f1_of_gold_codes, training notes: {name}": name for name in protocol.BANDS}
COLUMNS = {
    "rare50": {"f1_macro": "macro-F1 (CAML)", "f1_micro": "micro-F1", "auc_macro": "macro AUC", "map": "MAP"},
    "all": {
        "map": "MAP",
        "f1_micro": "micro-F1",
        "f1_of_gold_codes": "mean F1 of gold codes",
        **{key: f"of those with {name} training notes" for key, name in BANDS.items()},
        "precision_at_8": "P@8",
    },
}


def read(names: Sequence[str]) -> list[dict]:
    """The kept results of some sets; those that are not measured, or without late interaction, are missing."""
    paths = [RESULTS / "few_shot" / f"{name}.json" for name in names]
    found = [json.loads(path.read_text(encoding="utf-8")) for path in paths if path.exists()]
    return [result for result in found if result["rows"].get("late_interaction")]


def runs_of(results: Sequence[dict], row: str) -> list[list[dict]]:
    """For each set the runs of a row with the seeds that all sets have, in their order; none if there are none."""
    found = [result["rows"].get(row, []) for result in results]
    seeds = set.intersection(*({run["seed"] for run in runs} for runs in found))
    return [[run for run in runs if run["seed"] in seeds] for runs in found] if seeds else []


def figures(sets: Sequence[Sequence[dict]], metric: str, codes: str = "codes") -> list[float]:
    """For each seed the mean over the sets, in percent; of a missing value nothing."""
    values = [[run["dev"][codes]["metrics"].get(metric) for run in of_seed] for of_seed in zip(*sets, strict=True)]
    return [100 * mean(of_seed) for of_seed in values if None not in of_seed]


def cell(values: Sequence[float]) -> str:
    """Mean ± standard deviation over the seeds.

    Examples:
        >>> cell([50.0, 52.0]), cell([50.0]), cell([])
        ('51.0 ± 1.4', '50.0', '–')
    """
    if not values:
        return "–"
    return f"{mean(values):.1f}" + (f" ± {stdev(values):.1f}" if len(values) > 1 else "")


def notes_of(sets: Sequence[Sequence[dict]], codes: str) -> list[dict]:
    """For each seed the figures of all notes of all sets, one set's behind the other's."""
    names = sets[0][0]["dev"][codes]["notes"]
    return [
        {name: [value for run in of_seed for value in run["dev"][codes]["notes"][name]] for name in names}
        for of_seed in zip(*sets, strict=True)
    ]


def set_table(results: Sequence[dict], columns: Mapping[str, str], codes: str = "codes") -> str:
    """Markdown: the rows, best mean average precision first, each against the best rival."""
    rows = {name: read_row(name) for name in row_names()}
    sets = {name: found for name in rows if (found := runs_of(results, name))}
    order = sorted(sets, key=lambda name: -mean(figures(sets[name], "map", codes)))
    rival = next(name for name in order if rows[name].rival)
    lines = []
    for name in order:
        values = [cell(figures(sets[name], metric, codes)) for metric in columns]
        against = "–"
        if not rows[name].rival:
            against = _against(compare(notes_of(sets[name], codes), notes_of(sets[rival], codes)))
        minutes = mean(run["seconds"] for runs in sets[name] for run in runs) / 60
        lines.append([rows[name].title, *values, against, len(sets[name][0]), f"{minutes:.1f}"])
    header = ["system", *columns.values(), f"against {rows[rival].title}: MAP, micro-F1", "seeds", "minutes"]
    return markdown_table(lines, header)


def _against(differences: Mapping[str, Mapping[str, float]]) -> str:
    """In words."""
    parts = []
    for name in ("map", "f1_micro"):
        p = differences[name]["p"]
        shown = "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
        parts.append(f"{100 * differences[name]['difference']:+.1f} ({shown})")
    return ", ".join(parts)


def note_below(results: Sequence[dict]) -> str:
    """Numbers of notes and codes, machine and revisions."""
    runs = [run for result in results for of_row in result["rows"].values() for run in of_row]
    sizes = "; ".join(
        f"{result['set']['title']}: {result['set']['notes']['train']} training and {result['set']['notes']['dev']} dev "
        f"notes, {result['set']['codes']:,} codes"
        for result in results
    )
    revisions = ", ".join(sorted({run["versions"]["git"] for run in runs}))
    threads = " or ".join(sorted({str(run["threads"]) for run in runs}))
    return (
        f"{sizes}. Minutes are those of all fits and scorings of a seed, with {threads} thread, beside other work; of "
        "a fusion those of the fusing. "
        f"p: paired bootstrap over notes, two-sided. Revisions {revisions}."
    )


def summary_table() -> str:
    """Markdown: the most important figures of every row."""
    metrics = {"rare50": ("f1_macro", "f1_micro", "map"), "all": ("map", "f1_micro", "f1_of_gold_codes")}
    results = {"rare50": read(RARE), "all": read(("all",))}
    if not results["rare50"] or not results["all"]:
        return f"Not measured yet: `{RUN}`."
    lines = {}
    for name in row_names():
        values, order = [], []
        for kind, columns in metrics.items():
            found = runs_of(results[kind], name)
            values += [cell(figures(found, metric)) if found else "–" for metric in columns]
            order.append(mean(figures(found, "map")) if found else 0)
        if any(order):
            lines[name] = (order[::-1], [read_row(name).title, *values])
    columns = ["macro-F1 (CAML)", "micro-F1", "MAP", "MAP", "micro-F1", "mean F1 of gold codes"]
    header = [f"{kind}: {column}" for kind, column in zip(["rare"] * 3 + ["all"] * 3, columns, strict=True)]
    rows = [line for _, line in sorted(lines.values(), key=lambda item: item[0], reverse=True)]
    return markdown_table(rows, ["system", *header])


def tables() -> dict[tuple[str, str], str]:
    """File, and name of the place in it → its table."""
    found = {("README.md", "benchmark"): summary_table()}
    for name, columns, sets in (("rare50", COLUMNS["rare50"], RARE), ("all", COLUMNS["all"], ("all",))):
        results = read(sets)
        if not results:
            found[DOCUMENT, name] = f"Not measured yet: `{RUN}`."
            continue
        found[DOCUMENT, name] = "\n\n".join([set_table(results, columns), note_below(results)])
        if "listed_codes" in results[0]["set"]:
            listed = {"f1_macro": "macro-F1 (CAML)", **columns}
            found[DOCUMENT, f"{name}_listed"] = set_table(results, listed, "listed")
    return found


def draw(path: str) -> None:
    """The mean average precision of every row, for rare and for all codes; of what is measured."""
    titles = {"fifty rare codes": RARE, "all codes": ("all",)}
    panels = [(title, results) for title, names in titles.items() if (results := read(names))]
    if not panels:
        return
    figure, axes = new_figure(10.5, 5.2, [1] * len(panels))
    rows: dict[str, Row] = {name: read_row(name) for name in row_names()}
    for axis, (title, results) in zip(axes, panels, strict=True):
        values = {name: figures(found, "map") for name in rows if (found := runs_of(results, name))}
        order = sorted(values, key=lambda name: mean(values[name]))
        for place, name in enumerate(order):
            color = COLORS[1] if rows[name].rival else COLORS[0]
            axis.barh(place, mean(values[name]), color=color, zorder=3)
            if len(values[name]) > 1:
                axis.errorbar(mean(values[name]), place, xerr=stdev(values[name]), color="black", zorder=4)
            axis.annotate(f"{mean(values[name]):.0f}", (1, place), color="white", va="center", fontsize=8, zorder=5)
        axis.set_yticks(range(len(order)), [fill(rows[name].title, 34) for name in order], fontsize=8)
        axis.set(title=title, xlabel="MAP, percent")
    kinds = [Patch(color=COLORS[0]), Patch(color=COLORS[1])]
    figure.legend(kinds, ["with a model of this package", "others"], loc="outside lower center", ncols=2, frameon=False)
    figure.savefig(path, dpi=150)


def main() -> None:
    """Print the tables; with --write, replace those in the document and draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="replace the tables and the picture in docs/")
    write = parser.parse_args().write
    for (file, name), table in tables().items():
        print(f"{file}, {name}:\n{table}\n")
        if write:
            put_into(ROOT / file, name, table, COMMAND)
    if write:
        draw(ROOT / "docs" / "benchmarks.png")


if __name__ == "__main__":
    main()
