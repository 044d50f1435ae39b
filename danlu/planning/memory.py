"""Memory and disk of a decoder's training, by formula: for plans, which cannot try every size.

Of one token, each block keeps for backward (e bytes an element, 4 in fp32 and 2 in bf16; letters as in models/layers.py):

    e (4 D + 2 (N + 2K) H + N H + 2 F)         streams and norms 4 D, heads before and after rotation, attention's
                                               output, the feed-forward layer before and after its activation (3 F gated)
    e N T / 2                                  causal attention's weights, unless attention is fused

(after Korthikanti et al. 2022, 2205.05198, section 4). Weights, gradients and optimizer state are float32.
"""

from __future__ import annotations

from dataclasses import dataclass

from danlu.models.decoder_settings import DecoderShape

SLOTS = {"sgd": 1, "rmsprop": 1, "adam": 2, "adamw": 2, "lion": 1, "muon": 1, "adamh": 2}
"""Numbers that an optimizer keeps of each parameter."""
SCORE_BYTES = 64 * 2**20
"""What one piece of the chunked cross-entropy may take."""


@dataclass(frozen=True)
class Memory:
    """Bytes while training."""

    weights: int
    """Weights, gradients and, in bf16, the weights' copies."""
    optimizer: int
    """Optimizer state, and the moving average of the weights."""
    activations: int
    """What backward needs of one micro-batch."""
    scores: int
    """One piece of the scores, and the gradient that is made with them."""

    @property
    def total(self) -> int:
        """Peak: all of it together, at the end of forward."""
        return self.weights + self.optimizer + self.activations + self.scores


def training_memory(
    shape: DecoderShape,
    micro_batch: int,
    optimizer: str = "adamw",
    precision: str = "fp32",
    attention: str = "fused",
    has_ema: bool = False,
) -> Memory:
    """Memory of one update with micro-batches of `micro_batch` samples of `shape.context` tokens."""
    e, n_tokens, n = 2 if precision == "bf16" else 4, micro_batch * shape.context, shape.n_parameters
    copies = 2 * n if precision == "bf16" else 0
    activations = e * n_tokens * (shape.n_layers * kept_per_token(shape, attention) + 3 * shape.width)
    pieces = min(SCORE_BYTES, n_tokens * shape.vocab_size * 4)
    return Memory(
        weights=8 * n + copies,
        optimizer=4 * n * (SLOTS.get(optimizer, 2) + has_ema),
        activations=activations,
        scores=pieces + 4 * shape.vocab_size * shape.width,
    )


def kept_per_token(shape: DecoderShape, attention: str) -> int:
    """Elements that one block keeps of one token."""
    inner = shape.n_heads * shape.head_width
    heads = inner + 2 * shape.n_kv_heads * shape.head_width
    hidden = (3 if shape.gated else 2) * shape.hidden_width
    weights = shape.n_heads * shape.context // 2 if attention == "blocks" else 0
    return 4 * shape.width + 2 * heads + inner + hidden + weights
