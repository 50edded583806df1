"""Write the files that are made from others: the tables of metrics, the rules and their page, the dashboards.

python generate.py            write
python generate.py --check    exit 1 and name the files that are stale
"""

from __future__ import annotations

import sys
from pathlib import Path

from deploy.grafana import generate as dashboards
from docs import generate as metrics
from rules import generate as rules

ROOT = Path(__file__).resolve().parent


def main() -> int:
    """Write or check the files."""
    wanted = metrics.files() | rules.files() | dashboards.files()
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    for path in stale:
        name = path.relative_to(ROOT)
        if "--check" in sys.argv:
            print(f"{name} is stale: run make docs")
        else:
            path.write_text(wanted[path], encoding="utf-8")
            print(f"wrote {name}")
    return 1 if stale and "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
