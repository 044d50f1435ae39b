"""The folding network: a sequence to backbone frames (Jumper et al. 2021; algorithm numbers are its supplement's).

B samples, L residues, D single width, Z pair width, N heads, H head width, C triangle width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from danlu.base.contracts import Batch, Output
from danlu.models.fold_settings import Fold
from danlu.models.fold_structure import FAR, Frames, StructureModule

N_DISTANCES, FIRST, LAST = 15, 3.25, 20.75
"""Bins of the distances that go in again, and Angstrom between which they lie."""


class PairBiasedAttention(nn.Module):
    """Residues attend to residues, biased by their pairs, with a gate (algorithm 7, of one row)."""

    def __init__(self, settings: Fold) -> None:
        super().__init__()
        D = settings.width
        self.n_heads = settings.n_heads
        self.norm, self.pair_norm = nn.LayerNorm(D), nn.LayerNorm(settings.pair_width)
        self.qkv, self.gate = nn.Linear(D, 3 * D, bias=False), nn.Linear(D, D)
        self.bias = nn.Linear(settings.pair_width, self.n_heads, bias=False)
        self.out = nn.Linear(D, D)

    def forward(self, x: Tensor, pair: Tensor, hidden: Tensor) -> Tensor:
        """x (B, L, D), pair (B, L, L, Z), hidden (B, 1, 1, L) -> (B, L, D)."""
        B, L, D = x.shape
        x = self.norm(x)
        q, k, v = self.qkv(x).view(B, L, 3, self.n_heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        bias = self.bias(self.pair_norm(pair)).permute(0, 3, 1, 2)
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2) + bias
        mixed = scores.masked_fill(hidden, FAR).softmax(-1).to(v.dtype) @ v
        mixed = mixed.transpose(1, 2).reshape(B, L, D)
        return self.out(torch.sigmoid(self.gate(x)) * mixed)  # type: ignore[no-any-return]


class Transition(nn.Module):
    """Two linear maps with a ReLU between (algorithms 9 and 15)."""

    def __init__(self, width: int, expansion: int) -> None:
        super().__init__()
        self.norm, self.up = nn.LayerNorm(width), nn.Linear(width, expansion * width)
        self.out = nn.Linear(expansion * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Any leading shape."""
        return self.out(F.relu(self.up(self.norm(x))))  # type: ignore[no-any-return]


class OuterProduct(nn.Module):
    """Every product of one residue's features with another's (algorithm 10, of one row)."""

    def __init__(self, settings: Fold) -> None:
        super().__init__()
        W = settings.outer_width
        self.norm, self.sides = nn.LayerNorm(settings.width), nn.Linear(settings.width, 2 * W)
        self.out = nn.Linear(W * W, settings.pair_width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, D) -> (B, L, L, Z): sum_vw a_iv b_jw M_vwz, as (a M) b so that no (L, L, W W) is made."""
        a, b = self.sides(self.norm(x)).chunk(2, -1)
        B, L, W = a.shape
        weight = self.out.weight.view(-1, W, W).permute(1, 2, 0).reshape(W, -1)  # v -> (w, z)
        left = (a @ weight.to(a.dtype)).view(B, L, W, -1)
        return torch.einsum("bjw,biwz->bijz", b, left) + self.out.bias


class TriangleUpdate(nn.Module):
    """A pair learns from the two other sides of every triangle it is in (algorithms 11 and 12)."""

    def __init__(self, settings: Fold, outgoing: bool) -> None:
        super().__init__()
        Z, self.c, self.outgoing = settings.pair_width, settings.triangle_width, outgoing
        self.norm, self.mixed_norm = nn.LayerNorm(Z), nn.LayerNorm(self.c)
        self.sides, self.gate, self.out = nn.Linear(Z, 4 * self.c), nn.Linear(Z, Z), nn.Linear(self.c, Z)

    def forward(self, pair: Tensor, inside: Tensor) -> Tensor:
        """pair (B, L, L, Z), inside (B, L, L, 1) -> (B, L, L, Z). Outgoing: sum_k a_ik b_jk; incoming: sum_k a_ki b_kj."""
        pair = self.norm(pair)
        sides, gates = self.sides(pair).split(2 * self.c, -1)
        both = (sides * torch.sigmoid(gates) * inside).permute(0, 3, 1, 2)
        a, b = both.split(self.c, 1)
        mixed = a @ b.transpose(-1, -2) if self.outgoing else a.transpose(-1, -2) @ b
        mixed = self.mixed_norm(mixed.permute(0, 2, 3, 1))
        return torch.sigmoid(self.gate(pair)) * self.out(mixed)  # type: ignore[no-any-return]


class TriangleAttention(nn.Module):
    """Pairs with the same first residue attend to one another, biased by the third side (algorithm 13)."""

    def __init__(self, settings: Fold) -> None:
        super().__init__()
        Z = settings.pair_width
        self.n_heads = settings.triangle_heads
        self.norm, self.gate = nn.LayerNorm(Z), nn.Linear(Z, Z)
        self.qkv, self.bias = nn.Linear(Z, 3 * Z, bias=False), nn.Linear(Z, self.n_heads, bias=False)
        self.out = nn.Linear(Z, Z)

    def forward(self, pair: Tensor, hidden: Tensor) -> Tensor:
        """pair (B, L, L, Z), hidden (B, 1, 1, L) -> (B, L, L, Z)."""
        B, L, _, Z = pair.shape
        pair = self.norm(pair)
        q, k, v = self.qkv(pair).view(B, L, L, 3, self.n_heads, -1).permute(3, 0, 1, 4, 2, 5).unbind(0)
        bias = self.bias(pair).permute(0, 3, 1, 2)[:, None]  # of the side (j, k), the same for every i
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2) + bias
        weights = scores.masked_fill(hidden[:, None], FAR).softmax(-1).to(v.dtype)
        mixed = (weights @ v).transpose(2, 3).reshape(B, L, L, Z)
        return self.out(torch.sigmoid(self.gate(pair)) * mixed)  # type: ignore[no-any-return]


class Block(nn.Module):
    """One block of the trunk (algorithm 6): residues learn from pairs, pairs from residues, then from one another."""

    def __init__(self, settings: Fold) -> None:
        super().__init__()
        self.p = settings.dropout
        self.attention, self.transition = (
            PairBiasedAttention(settings),
            Transition(settings.width, settings.expansion),
        )
        self.outer = OuterProduct(settings)
        self.outgoing, self.incoming = TriangleUpdate(settings, True), TriangleUpdate(settings, False)
        starts = [TriangleAttention(settings) for _ in range(2 * settings.triangle_attention)]
        self.triangles = nn.ModuleList(starts)
        self.pair_transition = Transition(settings.pair_width, settings.expansion)

    def dropped(self, change: Tensor, axis: int) -> Tensor:
        """Dropout that is the same along an axis: whole rows (1) or columns (2) of the pairs."""
        if not self.training or not self.p:
            return change
        shape = [1 if i == axis else n for i, n in enumerate(change.shape)]
        return change * F.dropout(torch.ones(shape, dtype=change.dtype, device=change.device), self.p)

    def forward(self, x: Tensor, pair: Tensor, hidden: Tensor, inside: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, L, D), pair (B, L, L, Z), hidden (B, 1, 1, L), inside (B, L, L, 1)."""
        x = x + self.attention(x, pair, hidden)
        x = x + self.transition(x)
        pair = pair + self.outer(x)
        pair = pair + self.dropped(self.outgoing(pair, inside), 1)
        pair = pair + self.dropped(self.incoming(pair, inside), 1)
        for axis, triangle in enumerate(self.triangles, start=1):  # the second sees the pairs turned: same last residue
            turned = pair if axis == 1 else pair.transpose(1, 2)
            change = triangle(turned, hidden)
            pair = pair + self.dropped(change if axis == 1 else change.transpose(1, 2), axis)
        return x, pair + self.pair_transition(pair)


class FoldModel(nn.Module):
    """residues, residue_index, inside (B, L) -> frames of each layer, distogram, predicted lDDT."""

    def __init__(self, settings: Fold, n_types: int, n_bins: int, seed: int) -> None:
        super().__init__()
        self.settings = settings
        D, Z = settings.width, settings.pair_width
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            self.types, self.type_pairs = nn.Embedding(n_types, D), nn.Embedding(n_types, 2 * Z)
            self.offsets = nn.Embedding(2 * settings.max_offset + 1, Z)
            if settings.recycles:
                self.again_norm, self.again_pair_norm = nn.LayerNorm(D), nn.LayerNorm(Z)
                self.again_near = nn.Embedding(N_DISTANCES + 1, Z)
            self.blocks = nn.ModuleList([Block(settings) for _ in range(settings.n_blocks)])
            self.enter = nn.Linear(D, D)
            self.structure = StructureModule(settings)
            self.distogram = nn.Linear(Z, n_bins)
            self.confidence = nn.Sequential(
                nn.LayerNorm(D), nn.Linear(D, D), nn.ReLU(), nn.Linear(D, settings.lddt_bins)
            )
            self.start_weights()

    def start_weights(self) -> None:
        """Matrices from N(0, 1 / inputs); what ends a branch starts at 0 and gates start open (supplement 1.11.4)."""
        for name, module in self.named_modules():
            if isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=0.5)
            if not isinstance(module, nn.Linear):
                continue
            ends = name.endswith((".out", ".down", ".move", "distogram", "confidence.3"))
            gates = name.endswith(".gate")
            nn.init.normal_(module.weight, std=0.0 if ends or gates else module.in_features**-0.5)
            if module.bias is not None:
                nn.init.constant_(module.bias, 1.0 if gates else 0.0)

    def forward(self, batch: Batch) -> Output:
        """scores (B, L, L, bins) of the distogram; parts: rotations (layers, B, L, 3, 3), shifts (layers, B, L, 3) in
        Angstrom, confidence (B, L, lddt_bins)."""
        n = self.settings.recycles
        if self.training and n:
            n = int(torch.randint(n + 1, ()))
        before: tuple[Tensor, Tensor, Tensor] | None = None
        with torch.no_grad():
            for _ in range(n):
                x, pair, _, frames = self.passed(batch, before)
                before = x, pair, frames[-1].shift
        _, pair, states, frames = self.passed(batch, before)
        scores = self.distogram(pair + pair.transpose(1, 2))
        parts = {
            "rotations": torch.stack([f.rotation for f in frames]), "shifts": torch.stack([f.shift for f in frames]),
            "confidence": self.confidence(states),
        }  # fmt: skip
        return Output(scores=scores, parts=parts)

    def passed(
        self, batch: Batch, before: tuple[Tensor, Tensor, Tensor] | None
    ) -> tuple[Tensor, Tensor, Tensor, list[Frames]]:
        """One pass: (single, pair, the structure module's states, frames)."""
        inside = batch.tensors["inside"]
        hidden = ~inside[:, None, None]
        x, pair = self.embedded(batch, before)
        both = (inside[:, :, None] & inside[:, None])[..., None].to(pair.dtype)
        for block in self.blocks:
            x, pair = block(x, pair, hidden, both)
        states, frames = self.structure(self.enter(x), pair, hidden)
        return x, pair, states, frames

    def embedded(self, batch: Batch, before: tuple[Tensor, Tensor, Tensor] | None) -> tuple[Tensor, Tensor]:
        """Types, who is how far from whom along the sequence (algorithms 3 and 4), and the result of the pass before
        (algorithm 32)."""
        residues, at = batch.tensors["residues"], batch.tensors["residue_index"]
        x = self.types(residues)
        left, right = self.type_pairs(residues).chunk(2, -1)
        most = self.settings.max_offset
        offset = (at[:, :, None] - at[:, None]).clamp(-most, most) + most
        pair = left[:, :, None] + right[:, None] + self.offsets(offset)
        if before is not None:
            old, old_pair, places = before
            bins = ((torch.cdist(places, places) - FIRST) * (N_DISTANCES / (LAST - FIRST))).floor() + 1
            near = self.again_near(bins.clamp(0, N_DISTANCES).long())
            x, pair = x + self.again_norm(old), pair + self.again_pair_norm(old_pair) + near
        elif self.settings.recycles:  # the same of zeros
            x, pair = x + self.again_norm.bias, pair + (self.again_pair_norm.bias + self.again_near.weight[0])
        return x, pair
