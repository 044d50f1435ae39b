"""What the machine is, and how fast it multiplies matrices: the limit that training speed is held against."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Literal

from danlu.base.errors import UserError

if TYPE_CHECKING:
    import torch

Device = Literal["cpu", "cuda"]
Precision = Literal["fp32", "bf16"]
SIDES = {"cpu": 1024, "cuda": 8192}
"""Side of the square matrices that are timed: large enough that launching and packing do not show."""


@dataclass(frozen=True)
class Machine:
    """Where a run happens."""

    device: Device
    """What trains."""
    threads: int
    """CPU threads of one process."""
    cpu: str
    """Processor model."""
    n_cores: int
    """Physical cores that this process may use."""
    memory_bytes: int
    """Memory that training may count on: of the GPU when there is one, else of this process (its cgroup's limit)."""
    available_bytes: int
    """Of it, free now."""
    has_bf16: bool
    """Whether the device multiplies bf16 in hardware."""
    gpu: str = ""
    """GPU model, or nothing."""

    def to_json(self) -> dict[str, Any]:
        """For plan.json."""
        return asdict(self)

    def __str__(self) -> str:
        what = self.gpu or f"{self.cpu}, {self.threads} threads"
        bf16 = "bf16 in hardware" if self.has_bf16 else "no bf16 in hardware"
        return f"{what}, {self.memory_bytes / 1e9:.1f} GB, {bf16}"


@dataclass(frozen=True)
class Rate:
    """A measured matrix product rate."""

    precision: Precision
    gflops: float
    """Median over the repeats, 1e9 floating point operations a second (2 n^3 for a product of side n)."""
    low: float
    """Slowest repeat."""
    high: float
    """Fastest repeat."""
    n_repeats: int


def look(device: Literal["auto", "cpu", "cuda"] = "auto", threads: int | Literal["auto"] = "auto") -> Machine:
    """What the machine is. A device that is not there is refused."""
    import torch

    has_cuda = torch.cuda.is_available()
    if device == "cuda" and not has_cuda:
        raise UserError("train.device", 'is "cuda", and no CUDA device is to be had', fix='set it to "cpu" or "auto"')
    n_cores, model = usable_cores(), cpu_model()
    n_threads = n_cores if threads == "auto" else threads
    if has_cuda and device != "cpu":
        free, total = torch.cuda.mem_get_info()
        has_bf16 = torch.cuda.get_device_capability() >= (8, 0)
        return Machine("cuda", n_threads, model, n_cores, total, free, has_bf16, torch.cuda.get_device_name())
    total, free = memory()
    has_bf16 = bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return Machine("cpu", n_threads, model, n_cores, total, free, has_bf16)


def usable_cores() -> int:
    """Physical cores this process may run on: its affinity and its cgroup's quota; two threads of a core count once."""
    allowed = os.sched_getaffinity(0)
    cores = {siblings(cpu) for cpu in allowed}
    quota = cgroup_number("cpu.max")
    return max(1, min(len(cores), len(allowed), int(quota) if quota else len(cores)))


def siblings(cpu: int) -> str:
    """The hardware threads that share a core with this one, as the kernel writes them ("0,4"); itself when unknown."""
    path = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
    return path.read_text(encoding="utf-8").strip() if path.is_file() else str(cpu)


def cgroup_number(name: str) -> float | None:
    """A limit of this process's cgroup (version 2): memory.max in bytes, cpu.max in CPUs; None without one."""
    try:
        words = Path("/sys/fs/cgroup", name).read_text(encoding="utf-8").split()
    except OSError:
        return None
    if not words or words[0] == "max":
        return None
    return float(words[0]) / (float(words[1]) if len(words) > 1 else 1.0)


def memory() -> tuple[int, int]:
    """(total, free now) bytes of main memory that this process may use."""
    import psutil

    found = psutil.virtual_memory()
    total, free = int(found.total), int(found.available)
    limit, used = cgroup_number("memory.max"), cgroup_number("memory.current") or 0.0
    if limit is not None and limit < total:
        return int(limit), min(free, max(0, int(limit - used)))
    return total, free


def cpu_model() -> str:
    """The processor's name."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()


def matmul_rate(machine: Machine, precision: Precision, limit_s: float = 0.4) -> Rate:
    """Time products of two square matrices until `limit_s` is spent (at least 3, after one that warms up)."""
    import torch

    side = SIDES[machine.device]
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(side, side, generator=generator).to(machine.device, dtype) for _ in range(2))
    multiply = multiplier(a, b)
    multiply()
    seconds: list[float] = []
    while len(seconds) < 3 or (sum(seconds) < limit_s and len(seconds) < 200):
        started = time.perf_counter()
        multiply()
        seconds.append(time.perf_counter() - started)
    rates = [2e-9 * side**3 / s for s in seconds]
    return Rate(precision, median(rates), min(rates), max(rates), len(rates))


def multiplier(a: torch.Tensor, b: torch.Tensor) -> Callable[[], None]:
    """A call that multiplies and returns when the product is there."""
    import torch

    out = torch.empty_like(a)

    def multiply() -> None:
        torch.mm(a, b, out=out)
        if out.is_cuda:
            torch.cuda.synchronize()

    return multiply
