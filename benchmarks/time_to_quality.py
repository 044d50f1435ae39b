"""Time to a validation loss of 1.88 on tiny_shakespeare: danlu's shipped recipe against the reference recipe.

    DANLU_DATA=... python benchmarks/time_to_quality.py
Reference: a GPT-2 style model, 4 layers, 4 heads, 128 wide, context 64, batch 12, AdamW 1e-3 with cosine decay to 1e-4
and 100 warm-up steps, betas 0.9/0.99, weight decay 0.1, clipping at 1, 2,000 steps, fp32, no dropout, in a bare
PyTorch loop that uses the faster of two attentions. Both see the first 90% of the characters and are scored over
the whole last 10%, in consecutive windows of 64. Time is training alone: no data preparation, no evaluation.
"""

from __future__ import annotations

import argparse
import math
import statistics
import tempfile
import time
from collections import Counter
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import danlu
from danlu.build import open_text
from danlu.data.catalog import catalog_files
from danlu.recipe import Recipe
from danlu.tasks.language_scores import validation_sums
from danlu.trained import load_model

RECIPE = Path(__file__).parents[1] / "recipes" / "shakespeare.toml"
RESULT = Path(__file__).with_suffix(".md")
TARGET, T, WIDTH, HEADS, LAYERS, BATCH, STEPS = 1.88, 64, 128, 4, 4, 12, 2000


class Reference(nn.Module):
    """GPT-2 in its smallest form: LayerNorm, GELU, learned positions, tied head."""

    def __init__(self, vocab_size: int, fused: bool) -> None:
        super().__init__()
        self.fused = fused
        self.tokens, self.places = nn.Embedding(vocab_size, WIDTH), nn.Embedding(T, WIDTH)
        layers = [(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH), nn.LayerNorm(WIDTH),
                   nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)) for _ in range(LAYERS)]  # fmt: skip
        self.layers = nn.ModuleList(nn.ModuleList(layer) for layer in layers)
        self.norm = nn.LayerNorm(WIDTH)
        for name, p in self.named_parameters():
            if p.dim() == 2:
                nn.init.normal_(p, std=0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(p)
        for layer in self.layers:
            for output in (layer[2], layer[5]):
                nn.init.normal_(output.weight, std=0.02 / math.sqrt(2 * LAYERS))
        self.register_buffer("future", torch.ones(T, T, dtype=torch.bool).triu(1))

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T) -> (B, T, V)."""
        B = len(tokens)
        x = self.tokens(tokens) + self.places.weight
        for norm1, qkv, out, norm2, up, down in self.layers:
            q, k, v = qkv(norm1(x)).view(B, T, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
            if self.fused:
                y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            else:
                scores = (q @ k.transpose(-1, -2)) / math.sqrt(q.shape[-1])
                y = scores.masked_fill(self.future, -math.inf).softmax(-1) @ v
            x = x + out(y.transpose(1, 2).reshape(B, T, WIDTH))
            x = x + down(F.gelu(up(norm2(x))))
        return self.norm(x) @ self.tokens.weight.t()


def train_reference(data: Tensor, vocab_size: int, fused: bool, n_steps: int, seed: int) -> tuple[Reference, float]:
    """(model, seconds of training) of the reference recipe, or of its first steps."""
    torch.manual_seed(seed)
    model = Reference(vocab_size, fused)
    decayed = [p for p in model.parameters() if p.dim() == 2]
    rest = [p for p in model.parameters() if p.dim() != 2]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.99), fused=True)
    began = time.perf_counter()
    for step in range(n_steps):
        rows = data[torch.randint(len(data) - T, (BATCH, 1)) + torch.arange(T + 1)]
        share = max(0.0, (step - 100) / (STEPS - 100))
        lr = 1e-3 * (step + 1) / 100 if step < 100 else 1e-4 + 0.5 * (1e-3 - 1e-4) * (1 + math.cos(math.pi * share))
        for group in optimizer.param_groups:
            group["lr"] = lr
        loss = F.cross_entropy(model(rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten())
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return model, time.perf_counter() - began


@torch.no_grad()
def score(model: Reference, data: Tensor) -> float:
    """Mean nats over all whole windows of the validation text."""
    n = (len(data) - 1) // T
    inputs, targets = data[: n * T].view(n, T), data[1 : n * T + 1].view(n, T)
    losses = [
        F.cross_entropy(
            model(inputs[i : i + 256]).flatten(0, 1), targets[i : i + 256].flatten(), reduction="sum"
        ).item()
        for i in range(0, n, 256)
    ]
    return sum(losses) / (n * T)


def danlu_run(seed: int, folder: Path) -> tuple[float, float, int]:
    """(training seconds, whole-split validation loss, parameters) of the shipped recipe."""
    recipe = Recipe.load(RECIPE, sets=[f"seed={seed}", "evaluate.samples=0"])
    seconds = 0.0
    for report in danlu.train_steps(recipe, folder):
        seconds += sum(s for part, s in report.times.items() if part != "evaluate")
    run = danlu.open_run(folder)
    trained = load_model(run.folder)
    text = open_text(run.recipe, run.folder, trained.card, "validation")
    sums, _ = validation_sums(trained.model, recipe.task, text, 256, trained.device)
    return seconds, sums.loss, sum(p.numel() for p in trained.model.parameters())


def main() -> None:
    """Take turns, print and keep the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    n_rounds = parser.parse_args().rounds
    text = catalog_files("tiny_shakespeare", Counter())[0].path.read_text(encoding="utf-8")
    symbols = {c: i for i, c in enumerate(sorted(set(text)))}
    tokens = torch.tensor([symbols[c] for c in text])
    cut = int(0.9 * len(tokens))
    fused = min((True, False), key=lambda f: train_reference(tokens[:cut], len(symbols), f, 20, 0)[1])
    rows, ratios = [], []
    for seed in range(n_rounds):
        with tempfile.TemporaryDirectory() as folder:
            mine_s, mine, n_parameters = danlu_run(seed, Path(folder) / "run")
        model, theirs_s = train_reference(tokens[:cut], len(symbols), fused, STEPS, seed)
        theirs = score(model, tokens[cut:])
        ratios.append(theirs_s / mine_s)
        rows.append(f"| {seed} | {mine_s:.1f} | {mine:.3f} | {theirs_s:.1f} | {theirs:.3f} | {ratios[-1]:.1f}x |")
        print(rows[-1], flush=True)
    n_theirs = sum(p.numel() for p in model.parameters())
    table = "\n".join([
        f"# Time to a validation loss of {TARGET} on tiny_shakespeare", "",
        f"danlu: `recipes/shakespeare.toml`, {n_parameters:,} parameters. Reference: {n_theirs:,} parameters, {STEPS:,} steps, "
        f"{'fused' if fused else 'plain'} attention (the faster). torch {torch.__version__}, {torch.get_num_threads()} threads. "
        "Seconds are training alone.", "",
        "| seed | danlu s | danlu loss | reference s | reference loss | reference over danlu |", "|---|---|---|---|---|---|",
        *rows, "", f"Median {statistics.median(ratios):.1f}x ({min(ratios):.1f} to {max(ratios):.1f}).", "",
    ])  # fmt: skip
    print(table)
    RESULT.write_text(table, encoding="utf-8")


if __name__ == "__main__":
    main()
