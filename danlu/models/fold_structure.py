"""From representations to places: rigid frames, invariant point attention, the structure module (Jumper et al. 2021,
supplement 1.8). All of it in float32. B samples, L residues, N heads, H head width, P points, D width, Z pair width.

Inside, lengths are in nanometres; what comes out is in Angstrom.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from danlu.models.fold_settings import Fold

NANOMETRE = 10.0
HEAD_WIDTH = 16
FAR = -1e9


class Frames(NamedTuple):
    """Rigid motions x -> rotation x + shift, from each residue's own coordinates to the world's."""

    rotation: Tensor
    """(B, L, 3, 3)."""
    shift: Tensor
    """(B, L, 3)."""

    @classmethod
    def still(cls, B: int, L: int, device: torch.device) -> Frames:
        """All residues in one place, turned alike: where the structure module starts."""
        rotation = torch.eye(3, device=device).expand(B, L, 3, 3)
        return cls(rotation, torch.zeros(B, L, 3, device=device))

    def apply(self, points: Tensor) -> Tensor:
        """(B, L, K, 3) own coordinates -> world's: points R' + t."""
        return points @ self.rotation.transpose(-1, -2) + self.shift[:, :, None]

    def undo(self, points: Tensor) -> Tensor:
        """(B, L, K, 3) world's coordinates -> own."""
        return (points - self.shift[:, :, None]) @ self.rotation

    def then(self, change: Tensor) -> Frames:
        """(B, L, 6): a turn as a quaternion (1, b, c, d) brought to length 1, and a shift, both in own coordinates
        (algorithm 23)."""
        turn, shift = change[..., :3], change[..., 3:]
        moved = self.shift + (self.rotation @ shift[..., None])[..., 0]
        return Frames(self.rotation @ rotation_of(turn), moved)


def rotation_of(turn: Tensor) -> Tensor:
    """(..., 3) b, c, d of a quaternion whose first part is 1 -> (..., 3, 3)."""
    b, c, d = (turn / (1 + turn.square().sum(-1, keepdim=True)).sqrt()).unbind(-1)
    a = (1 + turn.square().sum(-1)).rsqrt()
    rows = [
        a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c),
        2 * (b * c + a * d), a * a - b * b + c * c - d * d, 2 * (c * d - a * b),
        2 * (b * d - a * c), 2 * (c * d + a * b), a * a - b * b - c * c + d * d,
    ]  # fmt: skip
    return torch.stack(rows, -1).view(*turn.shape[:-1], 3, 3)


class PointAttention(nn.Module):
    """Invariant point attention (algorithm 22): residues attend by content, by pair, and by how near the points that
    they throw into space come to one another. Moving all frames together changes nothing."""

    def __init__(self, settings: Fold) -> None:
        super().__init__()
        D, Z = settings.width, settings.pair_width
        self.n, self.p, self.v = settings.structure_heads, settings.query_points, settings.value_points
        self.parts = [self.n * w for w in (HEAD_WIDTH,) * 3 + (3 * self.p, 3 * self.p, 3 * self.v)]
        self.project = nn.Linear(D, sum(self.parts))
        self.pair_bias = nn.Linear(Z, self.n, bias=False)
        self.nearness = nn.Parameter(torch.full((self.n,), math.log(math.e - 1)))  # softplus gives 1
        self.out = nn.Linear(self.n * (HEAD_WIDTH + 4 * self.v + Z), D)

    def forward(self, x: Tensor, pair: Tensor, frames: Frames, hidden: Tensor) -> Tensor:
        """x (B, L, D), pair (B, L, L, Z), hidden (B, 1, 1, L) bool: residues not to look at -> (B, L, D)."""
        B, L, _ = x.shape
        q, k, v, q_points, k_points, v_points = self.project(x).split(self.parts, -1)
        q, k, v = (t.view(B, L, self.n, HEAD_WIDTH).transpose(1, 2) for t in (q, k, v))
        q_points, k_points, v_points = (
            frames.apply(t.view(B, L, -1, 3)).view(B, L, self.n, -1).transpose(1, 2)
            for t in (q_points, k_points, v_points)
        )
        q, k = self.joined(q, k, q_points, k_points)
        scores = q @ k.transpose(-1, -2) + math.sqrt(1 / 3) * self.pair_bias(pair).permute(0, 3, 1, 2)
        weights = scores.masked_fill(hidden, FAR).softmax(-1)
        mixed = weights @ torch.cat([v, v_points], -1)
        seen, points = mixed.transpose(1, 2).split([HEAD_WIDTH, 3 * self.v], -1)
        points = frames.undo(points.reshape(B, L, self.n * self.v, 3))
        sizes = (points.square().sum(-1) + 1e-8).sqrt()
        pairs = weights.transpose(1, 2) @ pair
        found = [seen.flatten(2), points.flatten(2), sizes, pairs.flatten(2)]
        return self.out(torch.cat(found, -1))  # type: ignore[no-any-return]

    def joined(self, q: Tensor, k: Tensor, q_points: Tensor, k_points: Tensor) -> tuple[Tensor, Tensor]:
        """(B, N, L, H + 3 P + 2) each, whose product is q k' / sqrt(3 H) - w / 2 sum_p |q_p - k_p|^2: one matrix product
        instead of all differences. Points are counted from the middle, which keeps the squares small."""
        w = F.softplus(self.nearness) * math.sqrt(2 / (9 * self.p)) * math.sqrt(1 / 3)
        w = w.view(1, -1, 1, 1)
        shape = *k_points.shape[:-1], self.p, 3
        middle = k_points.reshape(shape).mean((1, 2, 3), keepdim=True).detach()
        q_points, k_points = ((t.reshape(shape) - middle).flatten(-2) for t in (q_points, k_points))
        ones = torch.ones_like(q[..., :1])
        far_q, far_k = (-0.5 * t.square().sum(-1, keepdim=True) for t in (q_points, k_points))
        left = [q * math.sqrt(1 / (3 * HEAD_WIDTH)), w * q_points, w * far_q, w * ones]
        return torch.cat(left, -1), torch.cat([k, k_points, ones, far_k], -1)


class StructureModule(nn.Module):
    """Algorithm 20, for the backbone: the same layer several times, each moving every residue's frame a little."""

    def __init__(self, settings: Fold) -> None:
        super().__init__()
        D = settings.width
        self.n_layers = settings.n_layers
        self.norm, self.pair_norm = nn.LayerNorm(D), nn.LayerNorm(settings.pair_width)
        self.enter = nn.Linear(D, D)
        self.attention = PointAttention(settings)
        self.attention_norm, self.hidden_norm = nn.LayerNorm(D), nn.LayerNorm(D)
        self.hidden = nn.ModuleList([nn.Linear(D, D), nn.Linear(D, D)])
        self.down = nn.Linear(D, D)
        self.move = nn.Linear(D, 6)

    def forward(
        self, x: Tensor, pair: Tensor, hidden: Tensor, start: Frames | None = None
    ) -> tuple[Tensor, list[Frames]]:
        """x (B, L, D), pair (B, L, L, Z), hidden (B, 1, 1, L) -> (x, the frames after each layer, in Angstrom).

        `start`, in Angstrom: frames to start from instead of one place for all.
        """
        with torch.autocast(x.device.type, enabled=False):
            x, pair = self.enter(self.norm(x.float())), self.pair_norm(pair.float())
            frames = Frames.still(len(x), x.shape[1], x.device)
            if start is not None:
                frames = Frames(start.rotation, start.shift / NANOMETRE)
            made = []
            for _ in range(self.n_layers):
                x = self.attention_norm(x + self.attention(x, pair, frames, hidden))
                y = x
                for layer in self.hidden:
                    y = F.relu(layer(y))
                x = self.hidden_norm(x + self.down(y))
                frames = frames.then(self.move(x))
                made.append(Frames(frames.rotation, frames.shift * NANOMETRE))
                frames = Frames(frames.rotation.detach(), frames.shift)  # turns are learned layer by layer
            return x, made
