"""Term graphs: reading of a generated UMLS META folder, beside a plain loop, and graphs of many names.

    python benchmarks/bench_term_graph.py --rows 1000000 --names 4000000

The folder has MRCONSO.RRF with so many rows and MRREL.RRF with twice as many, in the layout of the real files: four
rows a concept, some in another language, suppressed or repeated; relations in both directions, a third of them of the
hierarchy, some in cycles or to concepts without a name. The loop is what public code does: every line split at |,
names and parents in dicts of sets. The graph of `--names` names is built of arrow columns and then saved and loaded.
Seconds are without imports; memory is the peak of the resident set above that of the imports, the columns given
included. Each turn has a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from provenance import RESULTS, keep, provenance

from kept_hf.knowledge import TermGraph, umls

ROWS_A_CONCEPT = 4
DOWNWARD = {"PAR": "CHD", "RB": "RN"}
DISTANCES = 512


def write_meta(folder: str | os.PathLike, rows: int, seed: int = 0) -> None:
    """MRCONSO.RRF with `rows` rows and MRREL.RRF with twice as many."""
    generator = random.Random(seed)
    words = ["".join(generator.choices("etaoinshrdlucmpgkéß", k=generator.randint(3, 11))) for _ in range(20_000)]
    concepts = max(rows // ROWS_A_CONCEPT, 2)
    with open(Path(folder) / "MRCONSO.RRF", "w", encoding="utf-8") as file:
        for row in range(rows):
            concept, place = divmod(row, ROWS_A_CONCEPT)
            draw = generator.random()
            language = "ENG" if place == 0 or draw < 0.6 else "SPA"
            kind = ("ACR" if draw < 0.05 else "SY") if place else "PT"
            name = " ".join(generator.choices(words, k=generator.randint(1, 6)))
            if place == 0:
                first = name
            elif draw < 0.1:
                name = first.upper()
            file.write(
                f"C{concept + 1:07}|{language}|{'S' if place else 'P'}|L{row:08}|PF|S{row:08}|Y|A{row:08}|||M{row:07}|"
                f"{'MSH' if draw < 0.5 else 'SNOMEDCT_US'}|{kind}|D{row:06}|{name}|0|"
                f"{'O' if draw > 0.95 else 'N'}|256|\n"
            )
    with open(Path(folder) / "MRREL.RRF", "w", encoding="utf-8") as file:
        for row in range(rows):
            draw = generator.random()
            # The last concepts have no row in MRCONSO.
            lower = generator.randint(2, concepts + concepts // 50 + 1)
            upper = lower // generator.randint(2, 6) or 1
            if draw < 0.01:
                lower, upper = upper, lower
            relation = "PAR" if draw < 0.25 else "RB" if draw < 0.33 else "RO"
            suppressed = "O" if 0.3 < draw < 0.31 else "N"
            head = f"|A{row:08}|AUI|"
            tail = f"|A{row:08}|AUI||R{row:09}||SNOMEDCT_US|SNOMEDCT_US|||{suppressed}||\n"
            file.write(f"C{lower:07}{head}{relation}|C{upper:07}{tail}")
            file.write(f"C{upper:07}{head}{DOWNWARD.get(relation, relation)}|C{lower:07}{tail}")


def write_columns(folder: str | os.PathLike, names: int, seed: int = 0) -> None:
    """names.parquet and edges.parquet: 2.5 names a concept, a parent for each but the first."""
    generator = np.random.default_rng(seed)
    letters = random.Random(seed)
    words = pa.array(["".join(letters.choices("etaoinshrdlucmpgk", k=letters.randint(3, 11))) for _ in range(20_000)])
    concepts = max(names * 2 // 5, 2)
    parts = [words.take(pa.array(generator.integers(0, len(words), names))) for _ in range(4)]
    ids = pc.binary_join_element_wise("C", pc.utf8_lpad(pa.array(np.arange(concepts)).cast(pa.string()), 7, "0"), "")
    of = np.sort(np.append(np.arange(concepts), generator.integers(0, concepts, names - concepts)))
    table = {"id": ids.take(pa.array(of)), "name": pc.binary_join_element_wise(*parts, " ")}
    pq.write_table(
        pa.table({**table, "kind": (generator.random(names) < 0.1).astype(np.uint8) + 1}), f"{folder}/names.parquet"
    )
    child = np.arange(1, concepts)
    parents = ids.take(pa.array(child // generator.integers(2, 7, concepts - 1)))
    pq.write_table(pa.table({"child": ids[1:], "parent": parents}), f"{folder}/edges.parquet")


def plain_loop(folder: str) -> dict:
    """Names and parents in dicts of sets."""
    names: dict[str, set[str]] = {}
    parents: dict[str, set[str]] = {}
    with open(f"{folder}/MRCONSO.RRF", encoding="utf-8") as file:
        for line in file:
            fields = line.split("|")
            if fields[1] == "ENG" and fields[16] == "N":
                names.setdefault(fields[0], set()).add(fields[14])
    with open(f"{folder}/MRREL.RRF", encoding="utf-8") as file:
        for line in file:
            fields = line.split("|")
            if fields[14] == "N":
                if fields[3] in ("PAR", "RB"):
                    parents.setdefault(fields[0], set()).add(fields[4])
                elif fields[3] in ("CHD", "RN"):
                    parents.setdefault(fields[4], set()).add(fields[0])
    return {"concepts": len(names)}


def read_umls(folder: str) -> dict:
    graph = umls.load(folder)
    return {"concepts": graph.num_concepts, "names": graph.num_names, "edges": graph.num_edges}


def build(folder: str) -> dict:
    """Ours, of columns; what the graph weighs, and what its distances take."""
    names, edges = pq.read_table(f"{folder}/names.parquet"), pq.read_table(f"{folder}/edges.parquet")
    graph = TermGraph.from_tables(
        names["id"], names["name"], names["kind"].to_numpy(), edges["child"], edges["parent"], source="benchmark"
    )
    graph.save(f"{folder}/graph")
    concepts = np.random.default_rng(0).integers(0, graph.num_concepts, DISTANCES)
    start = time.perf_counter()
    graph.tree_distance(concepts)
    return {
        "concepts": graph.num_concepts,
        "names": graph.num_names,
        "edges": graph.num_edges,
        "graph_bytes": sum(value.nbytes for value in vars(graph).values() if hasattr(value, "nbytes")),
        "distance_seconds": time.perf_counter() - start,
    }


def load(folder: str) -> dict:
    return {"names": TermGraph.load(f"{folder}/graph").num_names}


TASKS = {"plain loop": plain_loop, "umls.load": read_umls, "from_tables + save": build, "load": load}


def peak_rss() -> int:
    """Of this process alone: `getrusage` would count its parent too."""
    with open("/proc/self/status", encoding="ascii") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))


def measure(task: str, folder: str, repeat: int) -> dict:
    """Seconds of each turn, the highest peak, and what the task says of its result."""
    command = [sys.executable, __file__, "--one", task, folder]
    turns = [
        json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout) for _ in range(repeat)
    ]
    return {
        **turns[-1],
        "task": task,
        "seconds": [turn["seconds"] for turn in turns],
        "peak_bytes": max(turn["peak_bytes"] for turn in turns),
    }


def main(arguments: list[str] | None = None) -> dict:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[200_000], help="rows of MRCONSO")
    parser.add_argument("--names", type=int, nargs="+", default=[400_000], help="names of the other graph")
    parser.add_argument("--no_loop", action="store_true", help="leave out the plain loop, which takes much memory")
    parser.add_argument("--repeat", type=int, default=3, help="turns of each; the median counts")
    parser.add_argument("--output", default=str(RESULTS / "term_graph.json"))
    parser.add_argument("--one", nargs=2, metavar=("TASK", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.one:
        task, folder = options.one
        before, start = peak_rss(), time.perf_counter()
        found = TASKS[task](folder)
        print(json.dumps({**found, "seconds": time.perf_counter() - start, "peak_bytes": peak_rss() - before}))
        return {}

    measured = []
    print(
        f"{'task':20}{'rows':>12}{'seconds':>9}{'rows/s':>12}{'peak MB':>9}{'concepts':>11}{'names':>11}{'edges':>11}"
    )
    readers = ["umls.load"] if options.no_loop else ["plain loop", "umls.load"]
    sizes = [(rows, write_meta, readers, 3) for rows in options.rows]
    sizes += [(names, write_columns, ["from_tables + save", "load"], 1) for names in options.names]
    for size, write, tasks, rows_of_one in sizes:
        with tempfile.TemporaryDirectory() as folder:
            write(folder, size)
            for task in tasks:
                result = {"rows": size * rows_of_one, **measure(task, folder, options.repeat)}
                measured.append(result)
                seconds = median(result["seconds"])
                counts = "".join(f"{result.get(name, ''):>11}" for name in ("concepts", "names", "edges"))
                print(
                    f"{task:20}{result['rows']:>12}{seconds:9.2f}{result['rows'] / seconds:12,.0f}"
                    f"{result['peak_bytes'] / 1e6:9.0f}{counts}",
                    flush=True,
                )
    for result in measured:
        if "graph_bytes" in result:
            print(
                f"{result['names']} names weigh {result['graph_bytes'] / 1e6:.0f} MB as a graph; the distances between "
                f"{DISTANCES} concepts take {result['distance_seconds'] * 1e3:.0f} ms."
            )
    report = {**provenance("benchmarks/bench_term_graph.py", arguments, ["pyarrow", "numpy"]), "measured": measured}
    keep(report, options.output)
    return report


if __name__ == "__main__":
    main()
