"""What a transcription has to show: its worst transcripts aligned, what was heard for what, sounds to listen to."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from danlu.base.contracts import Split
from danlu.base.sound import spectrogram_png, wav_bytes
from danlu.tasks.panels import clips, listing
from danlu.tasks.transcribe_scores import alignments, edits

N_WORST, N_PAIRS, N_CLIPS, MOST_S = 15, 20, 8, 20.0


def transcript_panels(heard: list[str], said: list[str], split: Split) -> list[dict[str, Any]]:
    """Listings and clips, the worst first."""
    known = [i for i, text in enumerate(said) if text]
    if not known:
        return []
    aligned = dict(zip(known, alignments([said[i] for i in known], [heard[i] for i in known]), strict=True))
    counts = edits(said, heard)
    share = counts[:, :3].sum(1) / np.maximum(1, counts[:, 3])
    order = [i for i in np.argsort(-share, kind="stable").tolist() if i in aligned]
    wrong = [i for i in order if share[i] > 0]
    rows = [(split.name(i), *spelt(said[i], heard[i], aligned[i]), f"{share[i]:.0%}") for i in wrong[:N_WORST]]
    found = [
        listing("Worst transcripts", ["sound", "said", "heard", "word error"], rows,
                "[ ] word changed, - word left out, + word put in."),
        listing("Heard for what was said", ["said", "heard", "times"], pairs(said, heard, aligned),
                "The commonest edits. A dash: nothing."),
    ]  # fmt: skip
    half = N_CLIPS // 2
    right = [i for i in order if share[i] == 0]
    sounds = played(split, wrong[: N_CLIPS - min(half, len(right))] + right[:half], said, heard)
    if sounds:
        note = "Time runs to the right, frequency upwards. The worst come first, then some that are right."
        found.append(clips("Sounds", sounds, note))
    return found


def spelt(said: str, heard: str, chunks: list[Any]) -> tuple[str, str]:
    """Both texts, with the words that differ marked."""
    a, b = said.split(), heard.split()
    left: list[str] = []
    right: list[str] = []
    for chunk in chunks:
        x, y = a[chunk.ref_start_idx : chunk.ref_end_idx], b[chunk.hyp_start_idx : chunk.hyp_end_idx]
        if chunk.type == "equal":
            left, right = left + x, right + y
        elif chunk.type == "substitute":
            left, right = left + [f"[{word}]" for word in x], right + [f"[{word}]" for word in y]
        else:
            left, right = left + [f"-{word}" for word in x], right + [f"+{word}" for word in y]
    return " ".join(left), " ".join(right)


def pairs(said: list[str], heard: list[str], aligned: dict[int, list[Any]]) -> list[tuple[str, str, int]]:
    """(word said, word heard, times), the commonest first."""
    counts = Counter[tuple[str, str]]()
    for i, chunks in aligned.items():
        a, b = said[i].split(), heard[i].split()
        for chunk in chunks:
            if chunk.type == "equal":
                continue
            x, y = a[chunk.ref_start_idx : chunk.ref_end_idx], b[chunk.hyp_start_idx : chunk.hyp_end_idx]
            n = max(len(x), len(y))
            counts.update(zip(x or ["-"] * n, y or ["-"] * n, strict=True))
    return [(a, b, n) for (a, b), n in counts.most_common(N_PAIRS)]


def played(split: Any, rows: list[int], said: list[str], heard: list[str]) -> list[tuple[bytes, bytes, str]]:
    """(WAV, picture, caption) of some sounds, of a split that can give them."""
    if not hasattr(split, "sound"):
        return []
    found = []
    for row in rows:
        samples, rate = split.sound(row)
        tensors = split.batch(np.array([row])).tensors
        picture = spectrogram_png(tensors["frames"][0].numpy()[: 100 * int(MOST_S)])
        caption = f"{split.name(row)}: said {said[row]!r}, heard {heard[row]!r}"
        found.append((wav_bytes(samples[: int(MOST_S * rate)], rate), picture, caption))
    return found
