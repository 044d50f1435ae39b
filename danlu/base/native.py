"""The C kernels of kernels.c, attention.c and gates.c, compiled once for this machine and called through ctypes. Torch-free.

Without a C compiler `load` returns None and says why in `reason()`; the plain PyTorch path is used then.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

SOURCES = tuple(Path(__file__).with_name(f"{name}.c") for name in ("kernels", "attention", "gates"))
FLAGS = ("-O3", "-march=native", "-fopenmp", "-fno-math-errno", "-fno-trapping-math", "-shared", "-fPIC")
P, I, F = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float  # noqa: E741
N_PARTS = 32
"""Parts that sums over rows are cut into (kernels.c)."""
SIGNATURES = {
    "rms_forward": (P, P, P, P, P, P, I, I, F),
    "rms_backward": (P, P, P, P, P, P, P, I, I),
    "heads_forward": (P, P, P, P, P, P, P, I, I, I, I, I, I, F),
    "heads_backward": (P, P, P, P, P, P, P, P, I, I, I, I, I, I),
    "causal_softmax_forward": (P, I, I, I, I, F),
    "causal_softmax_backward": (P, P, I, I, I, I, F),
    "activation_forward": (P, P, I, I),
    "activation_backward": (P, P, P, I, I),
    "swiglu_forward": (P, P, I, I),
    "swiglu_backward": (P, P, P, I, I),
    "cross_entropy": (P, P, P, P, I, I, F, F, F, I),
    "merge_heads": (P, P, I, I, I, I, I),
    "gated_forward": (P, P, P, I, I, I, I),
    "gated_backward": (P, P, P, I, I, I, I),
}
FUSED_SIGNATURES = {
    "fused_attention_forward": (P, P, P, P, P, I, I, I, I, F, P, I),
    "fused_attention_backward": (P, P, P, P, P, P, P, P, P, I, I, I, I, F, P, I),
}
"""attention.c, bfloat16 only; there where has_fused_attention() says so."""


def cache_folder() -> Path:
    """Where compiled kernels are kept: DANLU_CACHE, else the user's cache folder."""
    named = os.environ.get("DANLU_CACHE")
    base = Path(named) if named else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "danlu"
    return base / "kernels"


def compiler() -> str | None:
    """The C compiler: $CC, else cc, gcc or clang, whichever is on the path."""
    return next(
        (found for name in (os.environ.get("CC"), "cc", "gcc", "clang") if name and (found := shutil.which(name))), None
    )


def cpu_flags() -> str:
    """What -march=native means here, so that a cache shared between machines is never mixed up."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        return next(line for line in lines if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):
        return platform.processor()


@functools.cache
def build() -> tuple[ctypes.CDLL | None, str]:
    """Compile (about 2 s) or find in the cache; (library, what happened)."""
    cc = compiler()
    if os.environ.get("DANLU_NATIVE") == "0":
        return None, "switched off by DANLU_NATIVE=0"
    if cc is None:
        return None, "no C compiler on this machine (cc, gcc or clang)"
    made_of = [*(source.read_text(encoding="utf-8") for source in SOURCES), *FLAGS, cc, cpu_flags()]
    target = cache_folder() / f"kernels-{hashlib.sha256(chr(10).join(made_of).encode()).hexdigest()[:16]}.so"
    try:
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
                made = Path(scratch) / "kernels.so"
                command = [cc, *FLAGS, *map(str, SOURCES), "-o", str(made), "-lm"]
                subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
                made.replace(target)
        library = ctypes.CDLL(str(target))
    except subprocess.CalledProcessError as error:
        return None, f"{cc} could not compile the kernels: {error.stderr.strip().splitlines()[-1:]}"
    except (OSError, subprocess.TimeoutExpired) as error:
        return None, f"the kernels could not be compiled or loaded: {error}"
    declare(library)
    return library, f"compiled by {Path(cc).name}"


def declare(library: ctypes.CDLL) -> None:
    """Tell ctypes what every function takes."""
    for name, kinds in SIGNATURES.items():
        for suffix in ("f32", "bf16"):
            function = getattr(library, f"{name}_{suffix}")
            function.argtypes, function.restype = kinds, None
    library.has_fused_attention.restype = I
    if library.has_fused_attention():
        for name, kinds in FUSED_SIGNATURES.items():
            function = getattr(library, name)
            function.argtypes, function.restype = kinds, None
        library.fused_attention_scratch.argtypes, library.fused_attention_scratch.restype = (I, I, I), I


def keep_freed_memory() -> bool:
    """Ask glibc to keep what is freed instead of handing it back to the kernel (M_MMAP_THRESHOLD, M_TRIM_THRESHOLD).

    A training step frees and takes the same hundreds of megabytes again, and each time the kernel gives zeroed pages:
    8% of a step at 6 layers of 384. False where the C library has no mallopt.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and mallopt(-3, 1 << 30) == 1 and mallopt(-1, (1 << 31) - 1) == 1


def give_freed_memory_back() -> None:
    """Hand what was freed and kept back to the kernel (malloc_trim(3)); nothing where the C library has no such call."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def load() -> ctypes.CDLL | None:
    """The library, or None where it cannot be had."""
    return build()[0]


@functools.cache
def has_fused_attention() -> bool:
    """Whether this CPU multiplies bfloat16 (AVX512-BF16), so that attention.c is there."""
    library = load()
    return library is not None and bool(library.has_fused_attention())


def reason() -> str:
    """One clause: how the kernels came to be, or why there are none."""
    return build()[1]
