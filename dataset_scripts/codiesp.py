"""CodiEsp as parquet: python dataset_scripts/codiesp.py --data_dir codiesp --out out --codes rare50"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from kept_hf.commands import export


def main(argv: Sequence[str] | None = None) -> None:
    export.main(["codiesp", *(sys.argv[1:] if argv is None else argv)])


if __name__ == "__main__":
    main()
