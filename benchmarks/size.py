"""Size by measurement, checked: on surfaces with a known truth (bias, coverage, 4 and 10 times beyond the ladder), and on a real
ladder of tiny byte models whose largest cell is held out. Real runs are kept in benchmarks/size_runs.jsonl, one line each.

    DANLU_DATA=../shared/data python -m benchmarks.size          about 3 minutes on one core the first time; writes size.md
"""

from __future__ import annotations

import json
import math
import random
import tempfile
from pathlib import Path

from danlu.planning.size import Rung, fit

OUT, RUNS = Path(__file__).with_name("size.md"), Path(__file__).with_name("size_runs.jsonl")
E, A, B, ALPHA, BETA = 1.82, 482.0, 2085.0, 0.348, 0.366
"""Hoffmann's data as Besiroglu et al. 2024 refitted them."""
SIZES, TOKENS = [1e6 * 2**i for i in range(5)], [2e7, 8e7, 3.2e8]
N_LADDERS = 60
WIDTHS, STEPS, BATCH, CONTEXT = (16, 24, 32, 48, 64), (100, 200, 400), 16, 64


def truth(n: float, d: float) -> float:
    """The made-up surface."""
    return E + A * n**-ALPHA + B * d**-BETA


def synthetic() -> list[str]:
    """Rows: noise, how far beyond, bias, root mean square error, coverage."""
    rows = ["| noise of a run | beyond the ladder | bias | rms error | in the 80% interval |", "|---|---|---|---|---|"]
    for noise in (0.002, 0.005, 0.01):
        for times in (4, 10):
            n, d = times * SIZES[-1], times * TOKENS[-1]
            errors, inside = [], 0
            for seed in range(N_LADDERS):
                rng = random.Random(seed)
                ladder = [Rung(x, y, truth(x, y) * (1 + rng.gauss(0, noise))) for x in SIZES for y in TOKENS]
                mean, sd = fit(ladder).at(n, d)
                errors.append(mean / truth(n, d) - 1)
                inside += abs(mean - truth(n, d)) <= 1.2816 * sd
            bias, rms = sum(errors) / N_LADDERS, math.sqrt(sum(e * e for e in errors) / N_LADDERS)
            rows.append(f"| {noise:.1%} | {times}x in N and D | {bias:+.2%} | {rms:.2%} | {inside} of {N_LADDERS} |")
    return rows


def real() -> list[Rung]:
    """The ladder on tiny_shakespeare's bytes: runs that are not kept yet are made."""
    kept = [json.loads(line) for line in RUNS.read_text().splitlines()] if RUNS.exists() else []
    done = {(row["width"], row["steps"]): row for row in kept}
    wanted = [(w, s) for s in STEPS for w in WIDTHS if (w, s) not in done]
    if wanted:
        done |= run_cells(wanted)
    rows = [done[w, s] for w in WIDTHS for s in STEPS]
    return [Rung(row["n_parameters"], row["n_tokens"], row["loss"], row["n_unique"], row["seconds"]) for row in rows]


def run_cells(wanted: list[tuple[int, int]]) -> dict[tuple[int, int], dict[str, float]]:
    """Train them, in one run folder."""
    import danlu
    from danlu import pipeline
    from danlu.planning.choices import Choices
    from danlu.planning.trials import Trial
    from danlu.stages import train

    found = {}
    with tempfile.TemporaryDirectory() as folder:
        recipe = danlu.Recipe.model_validate({
            "name": "size", "data": {"path": "tiny_shakespeare", "tokenizer": {"kind": "bytes"}},
            "model": {"kind": "decoder", "n_layers": 2, "width": WIDTHS[0], "n_heads": 2, "context": CONTEXT},
            "optimizer": {"kind": "adamw", "lr": 0.005}, "train": {"length": "100 steps", "batch": BATCH, "threads": 1},
            "evaluate": {"during_tokens": 65536}, "plan": {"budget": "prior"},
        })  # fmt: skip
        run = pipeline.run(recipe, Path(folder) / "run", until="plan")
        choices = Choices.read(run.folder)
        for width, steps in wanted:
            model = run.recipe.model.model_copy(update={"width": width}).resolved(run.card.vocab_size)
            own = choices.model_copy(update={"n_steps": steps, "model": choices.model | {"width": width}})
            outcome = train.run_trial(run.recipe, run.folder, Trial(own, settings={"model.width": width}))
            row = {
                "width": width, "steps": steps, "n_parameters": model.shape(run.card.vocab_size).n_hidden_parameters,
                "n_tokens": steps * BATCH * CONTEXT, "n_unique": run.card.splits["train"].n_tokens,
                "loss": outcome.loss, "seconds": outcome.seconds,
            }  # fmt: skip
            found[width, steps] = row
            with RUNS.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(row, flush=True)
    return found


def held_out(ladder: list[Rung]) -> list[str]:
    """Rows: the largest cell, then the largest size and the longest runs as a whole, each predicted from the rest."""
    largest, longest = max(r.n_parameters for r in ladder), max(r.n_tokens for r in ladder)
    cases = {
        "largest and longest cell": lambda r: r.n_parameters == largest and r.n_tokens == longest,
        "all of the largest size": lambda r: r.n_parameters == largest,
        "all of the longest runs": lambda r: r.n_tokens == longest,
        "both": lambda r: r.n_parameters == largest or r.n_tokens == longest,
    }
    rows = ["| held out | runs left | n | median error | worst | in the 80% interval |", "|---|---|---|---|---|---|"]
    for name, out in cases.items():
        rest, tested = [r for r in ladder if not out(r)], [r for r in ladder if out(r)]
        surface = fit(rest)
        at = [surface.at(r.n_parameters, r.worth) for r in tested]
        errors = [mean / r.loss - 1 for (mean, _), r in zip(at, tested, strict=True)]
        inside = sum(
            abs(mean - r.loss) <= 1.2816 * math.hypot(sd, surface.noise * mean)
            for (mean, sd), r in zip(at, tested, strict=True)
        )
        middle = sorted(abs(e) for e in errors)[len(errors) // 2]
        rows.append(
            f"| {name} | {len(rest)} | {len(tested)} | {middle:.2%} | {max(errors, key=abs):+.2%} | {inside} of {len(tested)} |"
        )
    return rows


def main() -> None:
    """Both parts, and the page."""
    ladder = real()
    total = sum(r.seconds for r in ladder)
    lines = [
        "# Size by measurement, checked", "", "`python -m benchmarks.size` writes this page.", "",
        f"## Known surfaces ({N_LADDERS} ladders of {len(SIZES) * len(TOKENS)} runs each)", "", *synthetic(), "",
        f"## A real ladder: bytes of tiny_shakespeare, 2 layers of width {min(WIDTHS)} to {max(WIDTHS)}, {min(STEPS)} to {max(STEPS)} "
        f"steps of {BATCH * CONTEXT:,} tokens, one seed, one rate for all; {total:.0f} s in all", "", *held_out(ladder),
    ]  # fmt: skip
    OUT.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
