"""One sound file to samples at one rate: looked at before it is decoded, rejected by name where it cannot be used.

Samples are float32, mono, full scale at 1. WAV, FLAC, OGG and what else libsndfile reads.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from danlu.base.errors import MissingExtra, UserError
from danlu.data.table_read import Intake

ENDINGS = (".wav", ".flac", ".ogg", ".oga", ".opus", ".aif", ".aiff", ".au", ".mp3")
Samples = NDArray[np.float32]
SILENT = 1e-4
"""A file that nowhere leaves its mean by more than this share of full scale (-80 dB) holds no sound."""
LOUDEST = 1e6
"""Float files may go beyond full scale, and some hold integers; beyond this they are no sound."""
MAX_CHANNELS = 64
UNKNOWN = 1 << 62
"""Frames that libsndfile gives where the file does not say how many."""


class Limits(NamedTuple):
    """What a file must be."""

    rate: int
    """Samples a second that every file comes to."""
    shortest_s: float
    longest_s: float
    max_bytes: int = 1 << 30
    """A file that would take more memory (float32, all channels) is not decoded."""


def soundfile() -> Any:
    """The library that reads sound."""
    try:
        import soundfile as library
    except (ImportError, OSError):  # OSError: the package is there, libsndfile is not
        raise MissingExtra("data.kind audio", "soundfile", "audio") from None
    return library


def decoded(path: Path, limits: Limits, intake: Intake, place: str = "") -> Samples | None:
    """(n,) mono at limits.rate; None, and a reason in the intake under `place`, where the file cannot be used."""
    library = soundfile()
    place = place or path.name
    try:
        if path.stat().st_size == 0:
            intake.reject(place, "empty", "0 bytes")
            return None
        with path.open("rb") as raw, library.SoundFile(raw) as file:
            if why := refused(file, limits):
                intake.reject(place, *why)
                return None
            most = math.ceil(limits.longest_s * file.samplerate) + 1
            wanted = file.frames if file.frames < UNKNOWN else None
            found = file.read(min(wanted or most, most), dtype="float32", always_2d=True)
            rate = int(file.samplerate)
    except (library.LibsndfileError, OSError, ValueError, RuntimeError, TypeError) as error:
        intake.reject(place, "not a sound file that can be read", getattr(error, "error_string", "") or str(error))
        return None
    if wanted is not None and len(found) < wanted:
        intake.reject(place, "truncated", f"{len(found)} of {wanted} frames")
        return None
    if (missing := missing_bytes(path)) > 0:
        intake.reject(place, "truncated", f"{missing} bytes less than its header says")
        return None
    return usable(found, rate, limits, intake, place)


def refused(file: Any, limits: Limits) -> tuple[str, str] | None:
    """(reason, what was found) when the header alone says no."""
    n, rate, channels = int(file.frames), int(file.samplerate), int(file.channels)
    if not 1 <= rate <= 1_000_000 or not 1 <= channels <= MAX_CHANNELS:
        return "not a sound file that can be read", f"{channels} channels at {rate} Hz"
    if n == 0:
        return "empty", "0 frames"
    if n < limits.shortest_s * rate:
        return "shorter than data.shortest", f"{n / rate:.3g} s"
    if UNKNOWN > n > limits.longest_s * rate:
        return "longer than data.longest", f"{n / rate:.6g} s"
    if min(n, limits.longest_s * rate) * channels * 4 > limits.max_bytes:
        return "too large to decode", f"{n} frames of {channels} channels"
    return None


def usable(found: NDArray[Any], rate: int, limits: Limits, intake: Intake, place: str) -> Samples | None:
    """Samples (n,) or (n, channels) as mono at the limits' rate, or None and a reason."""
    mono = found if found.ndim == 1 else found.mean(1)
    if len(mono) < max(1.0, limits.shortest_s * rate):
        intake.reject(place, "shorter than data.shortest" if len(mono) else "empty", f"{len(mono) / rate:.3g} s")
    elif len(mono) > limits.longest_s * rate:
        intake.reject(place, "longer than data.longest", f"{len(mono) / rate:.6g} s")
    elif not np.isfinite(found).all():
        intake.reject(place, "not finite", "NaN or infinite samples")
    elif (peak := float(np.abs(mono).max())) > LOUDEST:
        intake.reject(place, "values far beyond full scale", f"up to {peak:.3g}")
    elif float(np.abs(mono - mono.mean()).max()) < SILENT:
        intake.reject(place, "silent", f"no sample above {peak:.3g} of full scale")
    else:
        return resampled(np.asarray(mono, np.float32), rate, limits.rate)
    return None


def resampled(samples: Samples, rate: int, wanted: int) -> Samples:
    """(n,) at `rate` -> (ceil(n wanted / rate),) at `wanted`: polyphase filtering with scipy's Kaiser window."""
    if rate == wanted:
        return samples
    try:
        from scipy.signal import resample_poly
    except ImportError:
        raise MissingExtra(f"sound at {rate} Hz, resampled to {wanted}", "scipy", "audio") from None
    common = math.gcd(rate, wanted)
    return np.asarray(resample_poly(samples, wanted // common, rate // common), np.float32)


def missing_bytes(path: Path) -> int:
    """How many bytes a RIFF WAV lacks of its data chunk: libsndfile reads what is there and says nothing. 0 for other
    formats, and for writers that could not go back to fill in a size (all ones, or 0)."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(12)
        if head[:4] not in (b"RIFF", b"RF64") or head[8:] != b"WAVE":
            return 0
        while len(head := file.read(8)) == 8:
            length = int.from_bytes(head[4:], "little")
            if head[:4] == b"data":
                return 0 if length in (0, 0xFFFFFFFF) else max(0, file.tell() + length - size)
            file.seek(length + length % 2, 1)
    return 0


def as_samples(given: Any, limits: Limits) -> Samples:
    """A Python value, (n,) at limits.rate or (samples, rate), as mono samples; refused where a file would be."""
    samples, rate = given if isinstance(given, tuple) and len(given) == 2 else (given, limits.rate)
    array, intake = np.asarray(samples), Intake()
    if array.ndim not in (1, 2) or array.dtype.kind not in "fiu":
        raise UserError(
            "sound", "must be an array (samples,) or (samples, channels)", got=f"{array.dtype} {array.shape}"
        )
    scale = 1.0 if array.dtype.kind == "f" else float(np.iinfo(array.dtype).max) + 1.0
    found = usable(array.astype(np.float32) / np.float32(scale), int(rate), limits, intake, "sound")
    if found is None:
        raise UserError("sound", f"cannot be used: {intake.rejected[-1]['reason']}", got=intake.rejected[-1]["text"])
    return found
