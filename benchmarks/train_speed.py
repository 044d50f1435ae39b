"""Training speed on one machine in one run: danlu, a bare torch loop, Hugging Face Trainer, the matmul limit.

    python benchmarks/train_speed.py            6 layers, 384 wide, T=256, batch 16, 65 symbols, AdamW
Contestants take turns, round after round, so that a busy machine touches all alike; the table gives the median of
the per-round ratios with their range. FLOPs per token: 6 per matrix parameter + 6 T D per layer (causal attention).
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

import danlu
from danlu.base.contracts import Batch
from danlu.build import build_model, build_optimizer
from danlu.models.decoder_settings import Decoder
from danlu.planning import hardware
from danlu.planning.choices import Choices
from danlu.recipe import Recipe
from danlu.tasks.language import Language

Stepper = Iterator[float]
"""Does one update a `next` and gives its seconds."""
RESULT = Path(__file__).with_suffix(".md")


def write_text(path: Path, n_symbols: int, n_characters: int) -> None:
    """A text of so many symbols; speed does not depend on what it says."""
    symbols = np.array([chr(33 + i) for i in range(n_symbols)])
    path.write_text("".join(np.random.default_rng(0).choice(symbols, n_characters)), encoding="utf-8")


def recipe_of(args: argparse.Namespace, text: Path) -> Recipe:
    """The shape under test as a recipe; nothing but training is on."""
    return Recipe(
        name="speed",
        data={"path": str(text), "clean": [], "split": {"kind": "order"}, "tokenizer": {"kind": "characters"}},
        model={"n_layers": args.layers, "width": args.width, "n_heads": args.heads, "context": args.context},
        optimizer={"kind": "adamw", "lr": 1e-3, "weight_decay": 0.1},
        train={"length": f"{args.rounds * args.steps + 3} steps", "batch": args.batch, "signals": "never"},
        evaluate={"every": "never", "samples": 0},
        checkpoint={"save_every": "never"},
    )


def danlu_steps(recipe: Recipe, out: Path) -> Stepper:
    """The product: loader, guards, logs and all."""
    before = time.perf_counter()
    for _ in danlu.train_steps(recipe, out):
        yield time.perf_counter() - before
        before = time.perf_counter()


def bare_steps(recipe: Recipe, choices: Choices, vocab_size: int) -> Stepper:
    """The same model, precision, optimizer and clipping in the shortest loop one would write by hand."""
    card: Any = type("Card", (), {"vocab_size": vocab_size})
    model: Any = build_model(recipe, card, choices)
    optimizer, task = build_optimizer(recipe, model, choices), Language()
    tokens = torch.randint(vocab_size, (200_000,))
    T, B = model.settings.context, choices.batch
    while True:
        before = time.perf_counter()
        rows = torch.randint(len(tokens) - T - 1, (B, 1)) + torch.arange(T + 1)
        window = tokens[rows]
        batch = Batch({"tokens": window[:, :-1].contiguous(), "targets": window[:, 1:].contiguous()}, B * T)
        loss = task.loss_sum(model(batch), batch) / batch.n_targets
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step(1e-3)
        optimizer.zero_grad()
        loss.item()
        yield time.perf_counter() - before


def trainer_steps(args: argparse.Namespace, folder: Path, bf16: bool) -> Stepper:
    """Hugging Face Trainer with a GPT-2 of the same shape, at its defaults (or with bf16=True)."""
    import threading
    from queue import Queue

    from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments

    shape = {"n_layer": args.layers, "n_embd": args.width, "n_head": args.heads, "n_positions": args.context}
    config = GPT2Config(vocab_size=args.symbols, bos_token_id=0, eos_token_id=0, **shape)
    rows = torch.randint(args.symbols, (4096, args.context))
    data = [{"input_ids": row, "labels": row} for row in rows]
    go: Queue[bool] = Queue()
    done: Queue[float] = Queue()

    class TakeTurns(TrainerCallback):  # type: ignore[misc]
        """Waits for its turn before a step, reports its seconds after it."""

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.more = go.get()
            self.before = time.perf_counter()

        def on_step_end(self, _: Any, __: Any, control: Any, **___: Any) -> None:
            done.put(time.perf_counter() - self.before)
            control.should_training_stop = not self.more

    arguments = TrainingArguments(
        output_dir=str(folder), per_device_train_batch_size=args.batch, max_steps=10_000, bf16=bf16, report_to="none",
        save_strategy="no", disable_tqdm=True, logging_strategy="no", use_cpu=not torch.cuda.is_available(),
    )  # fmt: skip
    trainer = Trainer(GPT2LMHeadModel(config), arguments, train_dataset=data, callbacks=[TakeTurns()])
    thread = threading.Thread(target=trainer.train, daemon=True)
    thread.start()
    try:
        while True:
            go.put(True)
            yield done.get()
    finally:
        go.put(False)
        thread.join(60)


def flops_per_token(args: argparse.Namespace) -> float:
    """6N + causal attention, of the shape under test."""
    return Decoder(
        n_layers=args.layers, width=args.width, n_heads=args.heads, context=args.context
    ).shape(args.symbols).flops_per_token()  # fmt: skip


def arguments() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, value in {"layers": 6, "width": 384, "heads": 6, "context": 256, "batch": 16, "symbols": 65}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--steps", type=int, default=4, help="steps a round and contestant")
    parser.add_argument("--without-trainer", action="store_true")
    return parser.parse_args()


def table(args: argparse.Namespace, seconds: dict[str, list[float]], limits: list[float], choices: Choices) -> str:
    """The result as Markdown."""
    tokens, flops = args.batch * args.context, flops_per_token(args)
    mine = seconds["danlu"]
    rows = []
    for name, each in seconds.items():
        ratios = [theirs / ours for theirs, ours in zip(each, mine, strict=True)]
        rate = [tokens * flops / s / 1e9 / limit for s, limit in zip(each, limits, strict=True)]
        rows.append(
            f"| {name} | {tokens / statistics.median(each):,.0f} | {statistics.median(ratios):.2f}x "
            f"({min(ratios):.2f} to {max(ratios):.2f}) | {statistics.median(rate):.0%} |"
        )
    shape = f"{args.layers} layers, {args.width} wide, {args.heads} heads, T={args.context}, batch {args.batch}, {args.symbols} symbols"
    how = f"{choices.precision}, {choices.operations} operations, {choices.attention} attention, compile {choices.compile}"
    return "\n".join([
        f"# Training speed: {shape}", "",
        f"torch {torch.__version__}, {torch.get_num_threads()} threads; danlu chose {how}. "
        f"{args.rounds} rounds of {args.steps} steps, taken in turns; bf16 matmul limit "
        f"{statistics.median(limits):,.0f} GFLOP/s ({min(limits):,.0f} to {max(limits):,.0f}), measured in every round.", "",
        "| contestant | tokens/s (median) | danlu is faster by (median, range over rounds) | of the bf16 matmul limit |",
        "|---|---|---|---|", *rows, "",
    ])  # fmt: skip


def main() -> None:
    """Run and keep the table."""
    args = arguments()
    logging.disable(logging.WARNING)
    os.environ["HF_HUB_OFFLINE"] = "1"
    with tempfile.TemporaryDirectory() as scratch:
        text, out = Path(scratch) / "text.txt", Path(scratch) / "run"
        write_text(text, args.symbols, 1_000_000)
        recipe = recipe_of(args, text)
        danlu.plan(recipe, out)
        choices = Choices.read(danlu.open_run(out).folder)
        makers: dict[str, Callable[[], Stepper]] = {
            "danlu": lambda: danlu_steps(recipe, out),
            "bare torch loop, same model": lambda: bare_steps(recipe, choices, args.symbols),
        }
        if not args.without_trainer:
            makers["Hugging Face Trainer, bf16"] = lambda: trainer_steps(args, Path(scratch) / "b", True)
            makers["Hugging Face Trainer, defaults"] = lambda: trainer_steps(args, Path(scratch) / "a", False)
        limits: list[float] = []
        with contextlib.ExitStack() as stack:
            contestants = {name: stack.enter_context(contextlib.closing(make())) for name, make in makers.items()}
            seconds = measured(contestants, limits, args)
    text_table = table(args, seconds, limits, choices)
    print(text_table)
    RESULT.write_text(text_table, encoding="utf-8")


def measured(contestants: dict[str, Any], limits: list[float], args: argparse.Namespace) -> dict[str, list[float]]:
    """Seconds of each contestant by round, with the matmul limit taken in every round."""
    for stepper in contestants.values():
        next(stepper), next(stepper)
    machine = hardware.look()
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(args.rounds):
        limits.append(hardware.matmul_rate(machine, "bf16").gflops)
        for name, stepper in contestants.items():
            seconds[name].append(statistics.median(next(stepper) for _ in range(args.steps)))
    return seconds


if __name__ == "__main__":
    main()
