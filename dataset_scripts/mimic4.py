"""MIMIC-IV as parquet: python dataset_scripts/mimic4.py --data_dir mimic4 --config icd10 --out out"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from kept_hf.commands import export


def main(argv: Sequence[str] | None = None) -> None:
    export.main(["mimic4", *(sys.argv[1:] if argv is None else argv)])


if __name__ == "__main__":
    main()
