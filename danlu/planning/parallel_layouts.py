"""Memory of one device under a parallel layout of a decoder's training, by formula. Torch-free.

Letters: s tokens of a sample, b samples of a micro-batch, D width, a heads and k key-value heads of width H, F width of
the feed-forward layer, L layers, V vocabulary; t, p, c, d ways of tensor, pipeline, context and data parallelism. Numbers
are bf16 with fp32 sums and optimizer. Sources: Korthikanti et al. 2022 (2205.05198, sections 3 to 5) for activations with
sequence parallelism; Rajbhandari et al. 2020 (ZeRO, 1910.02054, section 5) for what is sharded; Narayanan et al. 2021
(Megatron-LM, 2104.04473, section 2) for pipelines.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from danlu.models.decoder_settings import DecoderShape

Recompute = Literal["none", "selective", "full"]
Stage = Literal["first", "last"]
FIXED_BYTES = 2e9
"""The CUDA context, the libraries' work space and the buffers of a few communicators: 1.5 to 2.5e9 on an H100."""
WEIGHT_BYTES, GRADIENT_BYTES, MASTER_BYTES, SLOT_BYTES = 2, 4, 4, 4
"""Of one parameter: bf16 weight, fp32 gradient, fp32 weight, and each number that the optimizer keeps; 18 with AdamW."""
SCORE_BYTES = 10
"""Of one score of the vocabulary: in bf16, in fp32, and its fp32 gradient (plain cross-entropy)."""
USABLE = 0.8
"""Estimates up to this share of a device's memory never ran out of it in 454 runs (Fujii et al. 2024, 2411.06465)."""


@dataclass(frozen=True)
class Job:
    """What is trained in one update."""

    shape: DecoderShape
    batch: int
    """Samples of shape.context tokens in one update."""
    slots: int = 2
    """Numbers that the optimizer keeps of each parameter: 2 for AdamW."""
    attention: str = "fused"
    """fused (FlashAttention: no matrix of scores is kept), or blocks."""
    dropout: bool = False

    @property
    def tokens(self) -> int:
        """Of one update."""
        return self.batch * self.shape.context


@dataclass(frozen=True)
class Layout:
    """How one update is laid over devices. Devices = data x tensor x pipeline x context."""

    data: int = 1
    tensor: int = 1
    pipeline: int = 1
    context: int = 1
    zero: int = 1
    """ZeRO stage: 1 shards the optimizer over data and context ranks, 2 gradients too, 3 (FSDP) weights too; 0 nothing."""
    micro_batch: int = 1
    recompute: Recompute = "none"
    """What backward computes again: nothing, attention's scores, or each whole layer."""
    chunks: int = 1
    """Pieces of the model that one pipeline stage holds (interleaved schedule, v); 1: plain 1F1B."""

    @property
    def n_devices(self) -> int:
        """All of them."""
        return self.data * self.tensor * self.pipeline * self.context

    @property
    def shards(self) -> int:
        """Ranks that hold the same part of the model: ZeRO's group."""
        return self.data * self.context

    def n_micro(self, batch: int) -> int:
        """Micro-batches of one data rank in one update."""
        return batch // (self.data * self.micro_batch)

    def __str__(self) -> str:
        ways = {"data": self.data, "tensor": self.tensor, "pipeline": self.pipeline, "context": self.context}
        text = " x ".join(f"{name} {n}" for name, n in ways.items() if n > 1) or "one device"
        interleaved = f", {self.chunks} chunks a stage" if self.chunks > 1 else ""
        again = {"none": "no recomputation", "selective": "attention recomputed", "full": "layers recomputed"}
        return f"{text}{interleaved}, ZeRO {self.zero}, micro-batch {self.micro_batch}, {again[self.recompute]}"


@dataclass(frozen=True)
class DeviceMemory:
    """Bytes on the fullest device."""

    weights: float
    gradients: float
    optimizer: float
    activations: float
    scores: float
    """Of the vocabulary: kept apart, because they are most of a small model's memory."""
    fixed: float = FIXED_BYTES

    @property
    def total(self) -> float:
        """All of it at once."""
        return float(sum(asdict(self).values()))

    def to_json(self) -> dict[str, Any]:
        """By part."""
        return asdict(self) | {"total": self.total}


def layer_bytes(job: Job, layout: Layout) -> float:
    """Bytes that one layer keeps of one micro-batch on one device, when nothing is computed again:
    s b (6D + 2(a + 2k)H + 2aH + 2D + 4F [6F gated] + 2D with dropout) / (t c), which is 34 s b h / t for GPT-3's shapes
    (2205.05198, equations 2 and 4), and 5 a s^2 b / (t c) of scores (4 without dropout) unless attention is fused or they
    are computed again."""
    shape = job.shape
    D, H, s = shape.width, shape.head_width, shape.context
    heads = 2 * (shape.n_heads + 2 * shape.n_kv_heads) * H + 2 * shape.n_heads * H
    per_token = 6 * D + heads + 2 * D + 2 * (3 if shape.gated else 2) * shape.hidden_width + 2 * D * job.dropout
    keeps_scores = job.attention == "blocks" and layout.recompute == "none"
    scores = (4 + job.dropout) * shape.n_heads * s if keeps_scores else 0
    return float(s * layout.micro_batch * (per_token + scores) / (layout.tensor * layout.context))


def in_flight(layout: Layout, n_micro: int, n_layers: int) -> float:
    """Layers times micro-batches that the first stage keeps: L/p min(m, p), and 1 + (p - 1)/(p v) as many when interleaved
    (2205.05198, section 4.2.3)."""
    p = layout.pipeline
    extra = 1 + (p - 1) / (p * layout.chunks) if layout.chunks > 1 and n_micro >= p else 1.0
    return -(-n_layers // p) * min(n_micro, p) * extra


def stage_parameters(shape: DecoderShape, layout: Layout, place: Stage) -> float:
    """Parameters of a device on the first or last stage. Tied tables are on both."""
    p = layout.pipeline
    if p == 1:
        return shape.n_parameters / layout.tensor
    blocks = -(-shape.n_layers // p) * shape.block_parameters
    positions = shape.context * shape.width if shape.learned_positions and place == "first" else 0
    return (blocks + shape.vocab_size * shape.width + positions) / layout.tensor


def device_memory(job: Job, layout: Layout) -> DeviceMemory:
    """On the fuller of the first stage (most micro-batches in flight) and the last (the vocabulary's scores)."""
    stages: tuple[Stage, ...] = ("first", "last") if layout.pipeline > 1 else ("last",)
    return max((stage_memory(job, layout, place) for place in stages), key=lambda memory: memory.total)


def stage_memory(job: Job, layout: Layout, place: Stage) -> DeviceMemory:
    """Of a device on that stage."""
    shape, g = job.shape, layout.shards
    n = stage_parameters(shape, layout, place)
    gathered = 2 * shape.block_parameters / layout.tensor if layout.zero == 3 else 0.0  # the layer in use and the next
    tokens = shape.context * layout.micro_batch / (layout.tensor * layout.context)
    first = place == "first" or layout.pipeline == 1
    flying = in_flight(layout, layout.n_micro(job.batch), shape.n_layers)
    n_kept = flying if first else -(-shape.n_layers // layout.pipeline)
    kept = n_kept * layer_bytes(job, layout)
    if layout.recompute == "full":
        kept = n_kept * 2 * shape.width * tokens + layer_bytes(job, layout)
    has_head = place == "last"
    return DeviceMemory(
        weights=WEIGHT_BYTES * (n / (g if layout.zero == 3 else 1) + gathered),
        gradients=GRADIENT_BYTES * n / (g if layout.zero >= 2 else 1) + WEIGHT_BYTES * gathered,
        optimizer=(MASTER_BYTES + SLOT_BYTES * job.slots) * n / (g if layout.zero >= 1 else 1),
        activations=kept,
        scores=SCORE_BYTES * tokens * shape.vocab_size if has_head else 0.0,
    )
