"""Machines that one does not have: a table of accelerators (accelerators.toml, every row with its source), and clusters
of them as a person writes them: "1024 x h100", "64 nodes x 8 h100", "h100". Torch-free."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from danlu.base.errors import UserError, near_names
from danlu.base.toml import read_toml

TABLE = Path(__file__).with_name("accelerators.toml")
MOST_DEVICES = 10**6
ALIASES = {"a100": "a100-80gb", "h100-80gb": "h100", "h100-sxm": "h100", "a100-80": "a100-80gb", "a100-40": "a100-40gb"}


@dataclass(frozen=True)
class Accelerator:
    """One kind of device. Rates are one way and without sparsity."""

    name: str
    """As it is written after "x"."""
    title: str
    """Its maker's name for it."""
    flops: float
    """Peak FLOP/s of matrix products in bf16 with fp32 sums (fp16 for v100)."""
    memory: float
    """Bytes."""
    bandwidth: float
    """Bytes a second of its memory."""
    node: int
    """Devices joined by the fast link: a server of GPUs, a pod of TPUs."""
    link: float
    """Bytes a second, one way, of one device's fast links."""
    network: float
    """Bytes a second, one way, between nodes, of one device."""
    price: tuple[float, float, float]
    """US dollars a device-hour: lowest, usual, highest on demand."""
    priced: str
    """Date and source of the price."""
    source: str
    """Where the other numbers come from."""
    checked: str
    """read or recalled."""


@dataclass(frozen=True)
class Cluster:
    """So many devices of one kind, in full nodes where there is more than one node."""

    device: Accelerator
    n_devices: int

    @property
    def node(self) -> int:
        """Devices of one node that are in use."""
        return min(self.device.node, self.n_devices)

    @property
    def n_nodes(self) -> int:
        """Nodes."""
        return max(1, -(-self.n_devices // self.device.node))

    def __str__(self) -> str:
        return f"{self.n_devices:,} x {self.device.name}"


@lru_cache(maxsize=1)
def accelerators() -> dict[str, Accelerator]:
    """The table, by name."""
    rows = read_toml(TABLE)[1].items()
    return {name: Accelerator(name=name, **row | {"price": tuple(row["price"])}) for name, row in rows}


def parse_cluster(text: str) -> Cluster:
    """ "1024 x h100", "1024 h100", "64 nodes x 8 h100", "h100" -> Cluster; UserError says what is wanted."""
    number, times = r"([0-9][0-9,_]*)", r"(?:\s*[x*×]\s*|\s+)"
    words = text.strip().lower()
    match = re.fullmatch(rf"(?:{number}\s*nodes?{times}(?:of\s+)?)?(?:{number}{times})?([a-z][a-z0-9-]*)", words)
    if not match:
        raise UserError("--on", 'must be written as "1024 x h100" or "64 nodes x 8 h100"', got=text)
    nodes, count, name = match.groups()
    device = accelerators().get(ALIASES.get(name, name))
    if device is None:
        near = near_names(name, [*accelerators(), *ALIASES]) or list(accelerators())
        raise UserError(
            "--on", "names an accelerator that danlu has no numbers of", got=name, fix=f"use {', '.join(near)}"
        )
    n_nodes = int(re.sub("[,_]", "", nodes)) if nodes else 1
    each = int(re.sub("[,_]", "", count)) if count else device.node if nodes else 1
    if not 1 <= n_nodes * each <= MOST_DEVICES or (nodes and each > device.node):
        most = f"1 to {MOST_DEVICES:,} devices, at most {device.node:,} a node"
        raise UserError("--on", f"must be {most}", got=text)
    if nodes and each < device.node and n_nodes > 1:
        raise UserError("--on", f"must use full nodes of {device.node} {device.name} when there are several", got=text)
    return Cluster(device, n_nodes * each)
