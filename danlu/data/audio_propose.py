"""A starter recipe for sounds, from a look at their folders: sections and why."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from danlu.base.errors import UserError
from danlu.data.audio_list import Clip, from_folders
from danlu.data.audio_read import ENDINGS, soundfile
from danlu.data.table_read import Intake

LONG_S = 4.0
"""Sounds longer than this on average are seen in coarser steps."""
N_LOOKED_AT = 50


class Proposal(NamedTuple):
    """Sections of a recipe."""

    data: dict[str, Any]
    reasons: dict[str, str]
    model: dict[str, Any]
    model_reasons: dict[str, str]


def propose_sounds(path: Path) -> Proposal | None:
    """For a folder of sounds in class folders; None where there are no sounds. Without classes it is refused."""
    files = sorted(p for p in path.rglob("*") if p.is_file() and p.name.lower().endswith(ENDINGS))
    if not files:
        return None
    clips = from_folders(files, path, Intake())
    counts = Counter(clip.label for clip in clips)
    if len(counts) < 2:
        raise UserError(
            str(path), "must hold a folder of sounds for each class", got=f"{len(files)} sounds in one folder",
            fix="sort them into folders, or write data.names, or a table of paths and transcripts: danlu list audio",
        )  # fmt: skip
    seconds, longest = lengths(clips)
    data: dict[str, Any] = {"kind": "audio", "path": str(path)}
    shown = ", ".join(f"{name} ({n})" for name, n in counts.most_common(4)) + (", ..." if len(counts) > 4 else "")
    reasons = {"path": f"{len(files):,} sounds; the folder a sound lies in is its class: {shown}"}
    if longest > 40:
        data["longest"] = float(round(longest + 1))
        reasons["longest"] = "seconds; the longest of those looked at is that long"
    data["augment"] = {"shift": 0.05, "gain": 6, "noise": 0.3, "time_masks": 1, "frequency_masks": 1}
    reasons["augment"] = "changes that leave the class as it is, a pure function of the seed"
    strides = [[2, 2], [2, 2], [2, 2]] if seconds > LONG_S else [[2, 2], [1, 2], [1, 2]]
    model = {"kind": "deepspeech", "channels": [16, 32, 32], "kernels": [[7, 7], [5, 5], [5, 5]], "strides": strides,
             "width": 128, "n_layers": 1, "dropout": 0.2}  # fmt: skip
    return Proposal(data, reasons, model, {"strides": f"frames and bins; a sound lasts {seconds:.2g} s on average"})


def lengths(clips: list[Clip]) -> tuple[float, float]:
    """(mean, longest) seconds of some sounds; a file that cannot be read is left to prepare."""
    library, found = soundfile(), []
    for clip in clips[:: max(1, len(clips) // N_LOOKED_AT)]:
        try:
            found.append(float(library.info(str(clip.path)).duration))
        except (library.LibsndfileError, OSError, RuntimeError):
            continue
    return (sum(found) / len(found), max(found)) if found else (1.0, 1.0)
