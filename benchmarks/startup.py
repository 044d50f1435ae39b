"""How long danlu takes to say its first word: --help, a wrong recipe, check. Against the limits in the table.

python benchmarks/startup.py        prints the table and keeps it in benchmarks/startup.md
"""

from __future__ import annotations

import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

N_RUNS = 7
WRONG = '[data]\npath = "python-stdlib"\n[optimizer]\nweigth_decay = 0.1\n'
RIGHT = '[data]\npath = "python-stdlib"\n[model]\nsize = "1M"\n[train]\nlength = "100 steps"\n'


Times = tuple[float, float]


def seconds(code: list[str], folder: Path, status: int) -> Times:
    """Median (wall, CPU) time of a fresh process, which must end with `status`."""
    walls, cpus = [], []
    for _ in range(N_RUNS):
        before, began = cpu_s(), time.perf_counter()
        done = subprocess.run([sys.executable, *code], cwd=folder, capture_output=True, timeout=120)
        walls.append(time.perf_counter() - began)
        cpus.append(cpu_s() - before)
        if done.returncode != status:
            raise SystemExit(f"{code} ended with {done.returncode}, not {status}: {done.stderr.decode()}")
    return statistics.median(walls), statistics.median(cpus)


def cpu_s() -> float:
    """CPU seconds of all children so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measured(folder: Path) -> list[tuple[str, Times, str]]:
    """(what, (wall, CPU) seconds, the limit on the wall time)."""
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
        ("... beyond import torch", (check[0] - torch[0], check[1] - torch[1]), "1.5"),
    ]


def main() -> None:
    """Measure, print, keep."""
    with tempfile.TemporaryDirectory() as name:
        rows = measured(Path(name))
    lines = ["# Startup", "", "| what | seconds | of CPU | limit | |", "|---|---|---|---|---|"]
    for what, (took, cpu), limit in rows:
        verdict = "" if not limit else "kept" if took <= float(limit) else "MISSED"
        lines.append(f"| `{what}` | {took:.2f} | {cpu:.2f} | {limit} | {verdict} |")
    lines += ["", f"Median of {N_RUNS} fresh processes. {platform.machine()}, Python {platform.python_version()}, "]
    lines[-1] += (
        f"{os.cpu_count()} cores with a load of {os.getloadavg()[0]:.1f}: seconds above those of CPU were spent waiting."
    )
    text = "\n".join(lines) + "\n"
    print(text)
    Path(__file__).with_suffix(".md").write_text(text, encoding="utf-8")
    if "MISSED" in text:
        sys.exit(3)


if __name__ == "__main__":
    main()
