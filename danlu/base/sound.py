"""Sounds and pictures of them as bytes, for reports and answers. Needs no library."""

from __future__ import annotations

import io
import struct
import wave
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray


def wav_bytes(samples: NDArray[Any], rate: int) -> bytes:
    """Mono samples (n,), full scale at 1, as a 16-bit PCM WAV file."""
    pcm = np.round(np.clip(np.asarray(samples, np.float64), -1.0, 1.0) * 32767).astype("<i2")
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(pcm.tobytes())
    return buffer.getvalue()


def spectrogram_png(frames: NDArray[Any], zoom: int = 3) -> bytes:
    """(T, F) numbers as a grey PNG: time to the right, frequency upwards, dark where there is most."""
    values = np.asarray(frames, np.float64).T[::-1]
    low, high = np.quantile(values, [0.02, 0.995]) if values.size else (0.0, 1.0)
    grey = (255 * (1 - np.clip((values - low) / max(high - low, 1e-9), 0, 1))).astype(np.uint8)
    return grey_png(grey.repeat(zoom, 0).repeat(zoom, 1))


def grey_png(pixels: NDArray[np.uint8]) -> bytes:
    """(H, W) bytes as a PNG file (ISO/IEC 15948): 8-bit grey, rows without filter."""
    height, width = pixels.shape

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = np.concatenate([np.zeros((height, 1), np.uint8), pixels], 1).tobytes()
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows, 6)) + chunk(b"IEND", b"")
