"""A starter recipe for sounds, from a look at their folders or their table: sections and why."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from danlu.base.errors import UserError
from danlu.data.audio_list import Clip, from_folders, located
from danlu.data.audio_read import ENDINGS, soundfile
from danlu.data.table_read import Intake, read

LONG_S = 4.0
"""Sounds longer than this on average are seen in coarser steps."""
N_LOOKED_AT = 50
TEXTS = ("text", "transcript", "transcription", "sentence")
LABELS = ("label", "class", "target", "category")


class Proposal(NamedTuple):
    """Sections of a recipe."""

    data: dict[str, Any]
    reasons: dict[str, str]
    model: dict[str, Any]
    model_reasons: dict[str, str]
    task: str = "classify"


def propose_listing(path: Path) -> Proposal | None:
    """For a table with a column of sound files and one of transcripts or labels; None where it is no such table."""
    rows = read([path], (), 0, Intake(), N_LOOKED_AT)
    columns = {name: [row[i] or "" for row in rows.values] for i, name in enumerate(rows.names)}
    file = next((n for n, v in columns.items() if v and all(x.lower().endswith(ENDINGS) for x in v if x)), None)
    usual = {name.lower(): name for name in columns if name != file}
    said = next((usual[name] for name in TEXTS if name in usual), None)
    label = next((usual[name] for name in LABELS if name in usual), None)
    if file is None or not (said or label):
        return None
    data: dict[str, Any] = {"kind": "audio", "path": str(path), "file": file}
    data |= {"text": said} if said else {"label": label}
    reasons = {"file": "the column of sound files", "text": "what is said in them", "label": "what they are"}
    found = [p for name in columns[file] if (p := located(path.parent, name)) is not None]
    clips = [Clip(p.name, p, "", "", "", {}) for p in found]
    return proposed(data, reasons, clips, "transcribe" if said else "classify")


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
    shown = ", ".join(f"{name} ({n})" for name, n in counts.most_common(4)) + (", ..." if len(counts) > 4 else "")
    reasons = {"path": f"{len(files):,} sounds; the folder a sound lies in is its class: {shown}"}
    return proposed({"kind": "audio", "path": str(path)}, reasons, clips, "classify")


def proposed(data: dict[str, Any], reasons: dict[str, str], clips: list[Clip], task: str) -> Proposal:
    """The rest follows from how long the sounds are."""
    seconds, longest = lengths(clips)
    if longest > 40:
        data["longest"] = float(round(longest + 1))
        reasons["longest"] = "seconds; the longest of those looked at is that long"
    data["augment"] = {"shift": 0.05, "gain": 6, "noise": 0.3, "time_masks": 1, "frequency_masks": 1}
    reasons["augment"] = "changes that leave the answer as it is, a pure function of the seed"
    coarse = seconds > LONG_S and task == "classify"
    strides = [[2, 2], [2, 2], [2, 2]] if coarse else [[2, 2], [1, 2], [1, 2]]
    model = {"kind": "deepspeech", "channels": [16, 32, 32], "kernels": [[7, 7], [5, 5], [5, 5]], "strides": strides,
             "width": 128, "n_layers": 1, "dropout": 0.2}  # fmt: skip
    return Proposal(
        data, reasons, model, {"strides": f"frames and bins; a sound lasts {seconds:.2g} s on average"}, task
    )


def lengths(clips: list[Clip]) -> tuple[float, float]:
    """(mean, longest) seconds of some sounds; a file that cannot be read is left to prepare."""
    library, found = soundfile(), []
    for clip in clips[:: max(1, len(clips) // N_LOOKED_AT)]:
        try:
            found.append(float(library.info(str(clip.path)).duration))
        except (library.LibsndfileError, OSError, RuntimeError):
            continue
    return (sum(found) / len(found), max(found)) if found else (1.0, 1.0)
