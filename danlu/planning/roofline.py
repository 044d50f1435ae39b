"""Seconds of one update of a decoder on a cluster, by the roofline: every matrix product at its peak times an efficiency
that grows with its sides, everything else at the memory's or the links' rate. Letters as in parallel_layouts.py. Torch-free.

A collective of n bytes over g ranks takes alpha sqrt(g - 1) + share(g) n / bandwidth, between a tree's turns and a ring's:
share is (g - 1)/g for gathering or scattering and twice that for summing (Thakur et al. 2005; NCCL's busbw).
A pipeline of p stages and m micro-batches
idles (p - 1) / (v m) of its working time (Narayanan et al. 2021, 2104.04473, section 2.2).
The constants in Efficiency were fitted to published runs: benchmarks/published_runs.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from danlu.planning.accelerators import Cluster
from danlu.planning.parallel_layouts import GRADIENT_BYTES, WEIGHT_BYTES, Job, Layout, layer_bytes, stage_parameters


@dataclass(frozen=True)
class Efficiency:
    """Shares of a peak that real programs reach."""

    matmul: Mapping[str, float] = field(
        default_factory=lambda: {"a100": 0.81, "h100": 0.56, "h200": 0.56, "b200": 0.56, "v100": 0.61, "tpu": 0.81}
    )
    """Of peak FLOP/s by large matrix products, by the accelerator's family. H100 and later are held down by power."""
    attention: float = 0.4
    """Of matmul's rate by fused attention, forward and backward."""
    memory: float = 0.8
    """Of the memory's bandwidth by element-wise work."""
    links: float = 0.91
    """Of links and network by large collectives."""
    half_rows: float = 425
    """Rows of a product at which it reaches half of its rate."""
    half_sides: float = 128
    """The same of its smaller other side."""
    exposed: float = 0.225
    """Share of a collective that is not hidden behind work which could hide it."""
    straggling: float = 0.013
    """Time lost by every doubling of nodes."""

    def of(self, name: str) -> float:
        """For matrix products of an accelerator."""
        return self.matmul[name.split("-")[0]]


FITTED = Efficiency()
ALPHA_LINK, ALPHA_NETWORK = 3e-6, 10e-6
"""Seconds of one hop."""
LAUNCH_S = 150e-6
"""The least that one layer's forward and backward take, however small: launching its kernels."""
TRAFFIC = 3.0
"""Times that what a layer keeps is read or written by element-wise work in forward and backward together."""
SCORE_TRAFFIC = 40
"""Bytes moved of each attention score that is not fused: two products, softmax and dropout, forward and backward."""
OPTIMIZER_TRAFFIC = 30
"""Bytes moved of each parameter by one AdamW update."""


@dataclass(frozen=True)
class StepTime:
    """Seconds of one update, by where they go. What overlaps is counted once, where it is exposed."""

    products: float
    """Matrix products, and attention."""
    elementwise: float
    """Norms, activations, softmax: bound by memory."""
    recomputed: float
    """Forward done again."""
    tensor: float
    """Collectives of tensor and context parallelism."""
    data: float
    """Gradients summed and weights gathered, as far as exposed."""
    pipeline: float
    """Bubble, and activations sent between stages."""
    optimizer: float
    waiting: float
    """For the slowest of many nodes."""

    @property
    def total(self) -> float:
        """Seconds."""
        return float(sum(asdict(self).values()))


def ring_s(n_bytes: float, ranks: int, bandwidth: float, alpha: float, times: float = 1.0) -> float:
    """A ring's seconds for n bytes (the whole, not a rank's part): times 1 gathers or scatters, times 2 sums."""
    if ranks == 1:
        return 0.0
    return times * (alpha * math.sqrt(ranks - 1) + (ranks - 1) / ranks * n_bytes / bandwidth)


def group_bandwidth(cluster: Cluster, ranks: int, inner: int, links: float) -> tuple[float, float]:
    """(bytes a second, alpha) of a ring over `ranks` whose neighbours are `inner` devices apart. Inside a node it is the fast
    link; between nodes the members of the group that share a node also share its network ports."""
    device = cluster.device
    if ranks * inner <= cluster.node:
        return links * device.link, ALPHA_LINK
    members = max(1, min(ranks, cluster.node // inner))
    return links * min(device.link, members * device.network), ALPHA_NETWORK


def product_s(rows: float, inner: float, outer: float, peak: float, eff: Efficiency) -> float:
    """Seconds of one product of (rows, inner) by (inner, outer)."""
    side = min(inner, outer)
    rate = peak * rows / (rows + eff.half_rows) * side / (side + eff.half_sides)
    return 2 * rows * inner * outer / rate


def layer_products(job: Job, layout: Layout, peak: float, eff: Efficiency) -> tuple[float, float]:
    """(forward seconds of one layer's products with weights, of attention) for one micro-batch on one device."""
    shape, t = job.shape, layout.tensor
    D, H, F, s = shape.width, shape.head_width, shape.hidden_width, shape.context
    rows = layout.micro_batch * s / layout.context
    heads = shape.n_heads * H
    pairs = [
        (D, (heads + 2 * shape.n_kv_heads * H) / t),
        (heads / t, D),
        (D, (2 if shape.gated else 1) * F / t),
        (F / t, D),
    ]
    weights = sum(product_s(rows, k, n, peak, eff) for k, n in pairs)
    fused = job.attention == "fused"
    flops = (2 if fused else 4) * rows * s * heads / t  # fused attention skips what causality hides
    return weights, flops / (peak * (eff.attention if fused else 0.7))


def step_time(job: Job, layout: Layout, cluster: Cluster, eff: Efficiency = FITTED) -> StepTime:
    """Seconds of one update."""
    shape, device = job.shape, cluster.device
    p, t, c, m = layout.pipeline, layout.tensor, layout.context, max(1, layout.n_micro(job.batch))
    peak, memory_rate = device.flops * eff.of(device.name), device.bandwidth * eff.memory
    weights, attention = layer_products(job, layout, peak, eff)
    rows = layout.micro_batch * shape.context / c
    kept = layer_bytes(job, layout)
    is_fused = job.attention == "fused"
    scores = 0.0 if is_fused else shape.n_heads * shape.context * rows / t
    elementwise = (TRAFFIC * kept + SCORE_TRAFFIC * scores) / memory_rate
    products = 3 * weights + (3.5 if is_fused else 3) * attention
    again = {
        "none": 0.0,
        "selective": 0.0 if is_fused else attention + elementwise / 4,
        "full": weights + attention + elementwise / 3,
    }
    recomputed = again[layout.recompute]
    tensor = tensor_s(job, layout, cluster, eff, recomputed > 0 and layout.recompute == "full")
    launch = max(0.0, LAUNCH_S - products - elementwise)
    head = (
        3 * product_s(rows, shape.width, shape.vocab_size / t, peak, eff)
        + 12 * rows * shape.vocab_size / t / memory_rate
    )
    layers = max(-(-shape.n_layers // p), shape.n_layers / p + head / p / max(products + elementwise, LAUNCH_S))
    layers = layers if p > 1 else shape.n_layers
    own_head = head if p == 1 else 0.0
    working = layers * (products + elementwise + recomputed + tensor + launch) + own_head
    data = data_s(job, layout, cluster, eff, working)
    sent = sending_s(job, layout, cluster, eff)
    bubble = (p - 1) / layout.chunks * (working + sent)
    n_own = stage_parameters(shape, layout, "last") / (layout.shards if layout.zero else 1)
    optimizer = OPTIMIZER_TRAFFIC * n_own / memory_rate
    busy = m * working + data + bubble + m * sent + optimizer
    return StepTime(
        products=m * (layers * (products + launch) + own_head),
        elementwise=m * layers * elementwise,
        recomputed=m * layers * recomputed,
        tensor=m * layers * tensor,
        data=data,
        pipeline=bubble + m * sent,
        optimizer=optimizer,
        waiting=busy * eff.straggling * math.log2(cluster.n_nodes),
    )


def tensor_s(job: Job, layout: Layout, cluster: Cluster, eff: Efficiency, again: bool) -> float:
    """Of one layer and micro-batch: two sums of activations forward, two backward and two when computed again (2104.04473,
    section 2.3); keys and values gathered over context ranks forward and backward, partly behind attention."""
    shape, t, c = job.shape, layout.tensor, layout.context
    rows = layout.micro_batch * shape.context / c
    bandwidth, alpha = group_bandwidth(cluster, t, 1, eff.links)
    summed = ring_s(2 * rows * shape.width, t, bandwidth, alpha, times=2)
    kv_bytes = 4 * rows * c * shape.n_kv_heads * shape.head_width / t
    gathered = ring_s(kv_bytes, c, *group_bandwidth(cluster, c, t, eff.links))
    return (6 if again else 4) * summed + (4 if again else 3) * gathered * eff.exposed


def data_s(job: Job, layout: Layout, cluster: Cluster, eff: Efficiency, working: float) -> float:
    """Of one update, exposed: up to ZeRO 2 gradients are scattered and weights gathered once, behind one micro-batch; ZeRO 3
    gathers the weights twice and scatters gradients for every micro-batch, behind that micro-batch (1910.02054, section 7)."""
    g = layout.shards
    n = stage_parameters(job.shape, layout, "last")
    bandwidth, alpha = group_bandwidth(cluster, g, layout.tensor, eff.links)
    if layout.zero < 3:
        comm = ring_s((GRADIENT_BYTES + WEIGHT_BYTES) * n, g, bandwidth, alpha)
        return max(eff.exposed * comm, comm - working)
    comm = ring_s((2 * WEIGHT_BYTES + GRADIENT_BYTES) * n, g, bandwidth, alpha * 3 * job.shape.n_layers)
    return max(1, layout.n_micro(job.batch)) * max(eff.exposed * comm, comm - working)


def sending_s(job: Job, layout: Layout, cluster: Cluster, eff: Efficiency) -> float:
    """Activations of one micro-batch to the next stage and their gradients back, once a chunk, partly hidden."""
    if layout.pipeline == 1:
        return 0.0
    shape = job.shape
    n_bytes = 2 * shape.width * layout.micro_batch * shape.context / (layout.tensor * layout.context)
    inside = layout.n_devices <= cluster.node
    rate = eff.links * (cluster.device.link if inside else cluster.device.network)
    return eff.exposed * 2 * layout.chunks * (n_bytes / rate + ALPHA_NETWORK)
