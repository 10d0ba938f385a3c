"""Reading of discharge summaries from a generated NOTEEVENTS: `physionet.read_discharge_summaries` and a `csv` loop.

    python benchmarks/bench_corpora.py --rows 50000 100000 200000 --repeat 3

The loop is what the public preprocessing does: every row through `csv.reader`, all notes kept by patient and admission
in dicts. The two take turns in one process; the file is read once before each. Memory is the peak of the resident set
above that of the imports, each time in a process of its own. The notes are random words of the length distribution of a
hospital's: 3% are discharge summaries of some 10,000 characters, the others have some 1,700. They stand either first,
grouped by category, or mixed.
"""

from __future__ import annotations

import argparse
import csv
import os
import random
import subprocess
import sys
import tempfile
import time
from statistics import median

from provenance import RESULTS, keep, provenance

from kept_hf.corpora import physionet

HEADER = "ROW_ID,SUBJECT_ID,HADM_ID,CHARTDATE,CHARTTIME,STORETIME,CATEGORY,DESCRIPTION,CGID,ISERROR,TEXT"
ONE_IN = 35  # rows of a discharge summary
ORDERS = ("grouped", "mixed")


def write_notes(path: str, rows: int, order: str, seed: int = 0) -> None:
    """A NOTEEVENTS table."""
    generator = random.Random(seed)
    words = ["".join(generator.choices("etaoinshrdlu", k=generator.randint(2, 9))) for _ in range(3000)]
    lines = [" ".join(generator.choices(words, k=12)) for _ in range(2000)]
    summaries = rows // ONE_IN
    with open(path, "w", encoding="utf-8", newline="") as file:
        file.write(HEADER + "\n")
        for row in range(rows):
            is_summary = row < summaries if order == "grouped" else row % ONE_IN == 0
            text = "\n".join(generator.choices(lines, k=150 if is_summary else generator.randint(4, 44)))
            if row % 10 == 0:
                text += ' he said ""ouch"" '
            category = "Discharge summary" if is_summary else "Nursing"
            hadm_id = 100_000 + generator.randint(0, 99_999)
            subject_id = hadm_id // 2
            file.write(f'{row},{subject_id},{hadm_id},2151-08-04,,,"{category}","Report",,,"{text}"\n')
        # Or the system would write it to the disk beside the measurement.
        file.flush()
        os.fsync(file.fileno())


def csv_loop(folder: str) -> int:
    """The public way; the number of admissions with a summary."""
    summaries: dict[tuple[int, str], list[str]] = {}
    others: dict[tuple[int, str], list[str]] = {}
    with open(os.path.join(folder, "NOTEEVENTS.csv"), encoding="utf-8") as file:
        reader = csv.reader(file)
        next(reader)
        for row in reader:
            key = int(row[1]), row[2]
            if key not in summaries:
                summaries[key], others[key] = [], []
            if row[6] == "Discharge summary":
                summaries[key].append(row[10])
            else:
                others[key].append(row[6] + ": " + row[10])
    return len({hadm_id for (_, hadm_id), texts in summaries.items() if texts})


def streamed(folder: str) -> int:
    """Ours; the number of admissions with a summary."""
    return len(physionet.read_discharge_summaries(folder))


READERS = {"csv loop": csv_loop, "kept_hf": streamed}


def read_once(path: str) -> None:
    """Have the file in the system's page cache, from which some systems remove it while a slow reader is at work."""
    with open(path, "rb", buffering=0) as file:
        while file.read(1 << 20):
            pass


def peak_rss() -> int:
    """Of this process alone: `getrusage` would count its parent too."""
    with open("/proc/self/status", encoding="ascii") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))


def peak_memory(name: str, folder: str) -> int:
    """Bytes of the resident set above the imports, in a process of its own."""
    command = [sys.executable, __file__, "--one", name, folder]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main(arguments: list[str] | None = None) -> dict:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[50_000, 100_000, 200_000])
    parser.add_argument("--orders", nargs="+", choices=ORDERS, default=ORDERS)
    parser.add_argument("--repeat", type=int, default=3, help="turns of each; the median counts")
    parser.add_argument("--output", default=str(RESULTS / "corpora.json"))
    parser.add_argument("--one", nargs=2, metavar=("READER", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.one:
        before = peak_rss()
        READERS[options.one[0]](options.one[1])
        print(peak_rss() - before)
        return {}

    measured = []
    print(f"{'rows':>8} {'order':8}{'MB':>7}{'csv loop':>12}{'kept_hf':>12}{'ratio':>8}{'peak MB':>18}")
    for rows in options.rows:
        for order in options.orders:
            with tempfile.TemporaryDirectory() as folder:
                path = os.path.join(folder, "NOTEEVENTS.csv")
                write_notes(path, rows, order)
                seconds: dict[str, list[float]] = {name: [] for name in READERS}
                found = {}
                for _ in range(options.repeat):
                    for name, reader in READERS.items():
                        read_once(path)
                        start = time.perf_counter()
                        found[name] = reader(folder)
                        seconds[name].append(time.perf_counter() - start)
                assert found["csv loop"] == found["kept_hf"], found
                size, memory = os.path.getsize(path), {name: peak_memory(name, folder) for name in READERS}
            ratio = median(theirs / ours for theirs, ours in zip(*seconds.values(), strict=True))
            measured.append(
                {
                    "rows": rows,
                    "order": order,
                    "file_bytes": size,
                    "admissions": found["kept_hf"],
                    "seconds": seconds,
                    "ratio": ratio,
                    "peak_bytes": memory,
                }
            )
            times = "".join(f"{median(values):10.2f} s" for values in seconds.values())
            peaks = " ->".join(f"{value / 1e6:7.0f}" for value in memory.values())
            print(f"{rows:8} {order:8}{size / 1e6:7.0f}{times}{ratio:8.1f}{peaks:>18}", flush=True)
    report = {**provenance("benchmarks/bench_corpora.py", arguments, ["pyarrow", "numpy"]), "measured": measured}
    keep(report, options.output)
    return report


if __name__ == "__main__":
    main()
