"""How long danlu takes to say its first word: --help, a wrong recipe, check. Against the limits in the table.

python benchmarks/startup.py        prints the table and keeps it in benchmarks/startup.md
"""

from __future__ import annotations

import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

N_RUNS = 7
WRONG = '[data]\npath = "python-stdlib"\n[optimizer]\nweigth_decay = 0.1\n'
RIGHT = '[data]\npath = "python-stdlib"\n[model]\nsize = "1M"\n[train]\nlength = "100 steps"\n'


def seconds(code: list[str], folder: Path, status: int) -> float:
    """Median wall time of a fresh process, which must end with `status`."""
    times = []
    for _ in range(N_RUNS):
        began = time.perf_counter()
        done = subprocess.run([sys.executable, *code], cwd=folder, capture_output=True, timeout=120)
        times.append(time.perf_counter() - began)
        if done.returncode != status:
            raise SystemExit(f"{code} ended with {done.returncode}, not {status}: {done.stderr.decode()}")
    return statistics.median(times)


def measured(folder: Path) -> list[tuple[str, float, str]]:
    """(what, seconds, the limit)."""
    (folder / "wrong.toml").write_text(WRONG)
    (folder / "right.toml").write_text(RIGHT)
    python = seconds(["-c", "pass"], folder, 0)
    torch = seconds(["-c", "import torch"], folder, 0)
    check = seconds(["-m", "danlu", "check", "right.toml"], folder, 0)
    return [
        ("python -c pass", python, ""),
        ("python -c 'import torch'", torch, ""),
        ("danlu --help", seconds(["-m", "danlu", "--help"], folder, 0), "0.3"),
        ("danlu run wrong.toml (refused)", seconds(["-m", "danlu", "run", "wrong.toml"], folder, 2), "0.6"),
        ("danlu check right.toml", check, ""),
        ("... beyond import torch", check - torch, "1.5"),
    ]


def main() -> None:
    """Measure, print, keep."""
    with tempfile.TemporaryDirectory() as name:
        rows = measured(Path(name))
    lines = ["# Startup", "", "| what | seconds | limit | |", "|---|---|---|---|"]
    for what, took, limit in rows:
        verdict = "" if not limit else "kept" if took <= float(limit) else "MISSED"
        lines.append(f"| `{what}` | {took:.2f} | {limit} | {verdict} |")
    lines += ["", f"Median of {N_RUNS} fresh processes. {platform.machine()}, Python {platform.python_version()}."]
    text = "\n".join(lines) + "\n"
    print(text)
    Path(__file__).with_suffix(".md").write_text(text, encoding="utf-8")
    if "MISSED" in text:
        sys.exit(3)


if __name__ == "__main__":
    main()
