"""Do a model's Tang poems scan? The share of poems whose verses all have five characters, or all seven.

    python benchmarks/poems_scan.py RUN [RUN ...]

Compared with real held-out poems (what is reached by poets) and with samples of a trigram of characters counted on the
same training poems (what is reached by looking two characters back). A verse is what stands between marks; a poem cut
off by the length limit is judged on its whole verses, at least two. Intervals: Wilson's, 95%. The table is
benchmarks/poems_scan.md.
"""

from __future__ import annotations

import json
import os
import random
import re
import sys
from collections import Counter, defaultdict
from pathlib import Path

import danlu
from danlu.models.generate import generate
from danlu.models.sampling import Sampling
from danlu.trained import load_model

TABLE = Path(__file__).with_suffix(".md")
N_POEMS, MAX_TOKENS, BATCH = 200, 100, 50
END = "\0"


def scans(poem: str) -> bool | None:
    """Whether all whole verses are of five, or all of seven characters; None with fewer than two verses."""
    verses = [v for v in re.split(r"[，。？！；、：\s]", poem) if v]
    if not re.search(r"[，。？！；]\s*$", poem):
        verses = verses[:-1]
    lengths = {len(v) for v in verses}
    return None if len(verses) < 2 else lengths in ({5}, {7})


def share(poems: list[str]) -> tuple[float, float, float, int]:
    """(share that scans, Wilson's low and high, poems judged)."""
    judged = [s for s in map(scans, poems) if s is not None]
    n, p, z = max(1, len(judged)), sum(judged) / max(1, len(judged)), 1.96
    middle, half = p + z * z / (2 * n), z * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5
    return p, (middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n), len(judged)


def trigram_poems(poems: list[str], n: int) -> list[str]:
    """Samples of a trigram of characters, interpolated with nothing: only seen ones follow."""
    follow: dict[str, Counter[str]] = defaultdict(Counter)
    for poem in poems:
        text = END * 2 + poem + END
        for i in range(2, len(text)):
            follow[text[i - 2 : i]][text[i]] += 1
    rng, made = random.Random(0), []
    for _ in range(n):
        text = END * 2
        while len(text) < MAX_TOKENS + 2:
            seen = follow[text[-2:]]
            character = rng.choices(list(seen), list(seen.values()))[0]
            if character == END:
                break
            text += character
        made.append(text[2:])
    return made


def main() -> None:
    """Sample, count, write the table."""
    folder = Path(os.environ["DANLU_DATA"]) / "chinese_poetry"
    files = sorted(folder.rglob("*tang*.json"))
    poems = ["\n".join(p["paragraphs"]) for f in files for p in json.loads(f.read_text(encoding="utf-8"))]
    held, seen = poems[::20], [p for i, p in enumerate(poems) if i % 20]
    rows = {"real poems (every twentieth)": held, "trigram of characters": trigram_poems(seen, N_POEMS)}
    for path in sys.argv[1:]:
        run = danlu.open_run(path)
        trained = load_model(run.folder, run.recipe)
        made: list[str] = []
        for seed in range(N_POEMS // BATCH):
            how = Sampling(max_new_tokens=MAX_TOKENS, temperature=0.8, seed=seed)
            made += [c.text for c in generate(trained.model, trained.tokenizer, [""] * BATCH, how, trained.limits)]
        rows[f"`{run.recipe.name}`, temperature 0.8"] = made
    lines = ["# Do the poems scan?", "", (__doc__ or "").split("\n\n")[2].strip(), ""]
    lines += ["| poems | all verses of five, or all of seven | judged |", "|---|---|---|"]
    for name, found in rows.items():
        p, low, high, n = share(found)
        lines.append(f"| {name} | {p:.0%} ({low:.0%} to {high:.0%}) | {n} |")
    for name, found in list(rows.items())[1:]:
        lines += ["", f"The first of {name}:", "", *(f"> {verse}" for verse in found[0].splitlines() if verse)]
    TABLE.write_text("\n".join([*lines, ""]), encoding="utf-8")
    print(TABLE.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
