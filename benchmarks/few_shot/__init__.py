"""A benchmark of systems on few coded notes: CodiEsp's codes, rare and all, with nothing chosen on what is reported.

    python -m benchmarks.few_shot.run --data_dir path/to/codiesp --sets rare50-1 --rows late_interaction
    python -m benchmarks.few_shot.tables --write

A row is a file of `rows/`; the sets are in `sets.py`; how they are measured is in `protocol.py`.
"""
