"""What a task gives the report to draw: plain JSON, one function a form. The report needs no more than this.

Every panel has "form", "title" and "note" (one sentence on how to read it).
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import Any

Panel = dict[str, Any]


def matrix(
    title: str, values: Sequence[Sequence[float]], rows: Sequence[str], columns: Sequence[str], note: str = ""
) -> Panel:
    """A heat map with its numbers: a confusion matrix (rows: truth), an attention map, a contact map. Without names it
    is drawn as an image."""
    return {"form": "matrix", "title": title, "note": note, "values": [[float(v) for v in row] for row in values],
            "rows": list(rows), "columns": list(columns)}  # fmt: skip


def points(title: str, x: Sequence[float], y: Sequence[float], x_label: str, y_label: str, note: str = "") -> Panel:
    """A scatter plot (at most about 2,000 points): residuals over predictions, predicted over true."""
    return {"form": "points", "title": title, "note": note, "x": [float(v) for v in x], "y": [float(v) for v in y],
            "x_label": x_label, "y_label": y_label}  # fmt: skip


def lines(
    title: str,
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    x_label: str,
    y_label: str,
    note: str = "",
) -> Panel:
    """Lines by name, each (x, y): a forecast over its history, an ROC or a calibration curve."""
    drawn = [{"name": n, "x": [float(v) for v in x], "y": [float(v) for v in y]} for n, (x, y) in series.items()]
    return {"form": "lines", "title": title, "note": note, "lines": drawn, "x_label": x_label, "y_label": y_label}


def listing(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], note: str = "") -> Panel:
    """A table: the worst errors, recall by class, translations beside references."""
    return {
        "form": "listing",
        "title": title,
        "note": note,
        "columns": list(columns),
        "rows": [list(map(str, r)) for r in rows],
    }


def images(title: str, pictures: Sequence[tuple[bytes, str]], note: str = "") -> Panel:
    """Pictures (PNG or JPEG bytes, caption)."""
    items = [{"data": b64encode(data).decode("ascii"), "caption": caption} for data, caption in pictures]
    return {"form": "images", "title": title, "note": note, "items": items}


def clips(title: str, sounds: Sequence[tuple[bytes, bytes, str]], note: str = "") -> Panel:
    """Sounds to play (WAV bytes, a spectrogram as PNG bytes or b"", caption)."""
    items = [
        {"data": b64encode(wav).decode("ascii"), "picture": b64encode(png).decode("ascii"), "caption": caption}
        for wav, png, caption in sounds
    ]
    return {"form": "clips", "title": title, "note": note, "items": items}
