"""Fixtures for all rooms: a tiny run folder that is prepared and planned by hand."""

import os
import signal
import tempfile

import numpy as np
import pytest

from danlu.base.contracts import DataCard, SplitCard
from danlu.base.runfolder import RunFolder, write_json
from danlu.planning.choices import Choices
from danlu.recipe import Recipe

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # started in the background: the tests of Ctrl-C need it
    signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ["DANLU_HOME"] = tempfile.mkdtemp(prefix="danlu-home-")  # no test adds to the user's own scorecards
VOCAB, MODEL = 13, {"n_layers": 2, "width": 32, "n_heads": 2, "context": 16}


@pytest.fixture(autouse=True)
def own_history(monkeypatch, tmp_path_factory, request):
    """Each test starts with no past scorecards, which would change the intervals of its plans."""
    monkeypatch.setenv(
        "DANLU_HOME", str(tmp_path_factory.getbasetemp() / "homes" / str(abs(hash(request.node.nodeid))))
    )


@pytest.fixture
def tiny_run(tmp_path):
    """make(name, choices={}, **recipe sections) -> (recipe, run): learnable tokens, a two-layer decoder, 12 steps."""

    def make(name="run", choices=None, **sections):
        run = RunFolder.create(tmp_path / name, name, "0" * 16)
        run.data.mkdir(parents=True, exist_ok=True)
        splits = {}
        for split, n_tokens, seed in (("train", 4000, 1), ("validation", 400, 2)):
            noise = np.random.default_rng(seed).integers(0, 3, n_tokens)
            tokens = (np.arange(n_tokens) * 5 + noise) % VOCAB
            tokens.astype("u1").tofile(run.data / f"{split}.bin")
            np.array([0, n_tokens], "<u8").tofile(run.data / f"{split}.docs.bin")
            splits[split] = SplitCard(n_documents=1, n_bytes=n_tokens, n_tokens=n_tokens)
        np.ones(VOCAB, "<u2").tofile(run.data / "token_bytes.bin")
        card = DataCard(
            kind="text", source="made by hand", rows_in=2, rows_used=2, rows_rejected={}, splits=splits,
            vocab_size=VOCAB, dtype="uint8", fingerprint="0123",
        )  # fmt: skip
        write_json(run.data / "card.json", card.model_dump(mode="json"))
        sections = {"model": MODEL, "optimizer": {"kind": "adamw"}} | sections
        recipe = Recipe(name=name, data={"path": "made-by-hand.txt"}, **sections)
        settled = {
            "device": "cpu", "threads": 1, "precision": "fp32", "operations": "plain", "attention": "blocks",
            "compile": False, "batch": 16, "micro_batch": 16, "n_steps": 12, "model": {},
            "optimizer": {"lr": 3e-3, "weight_decay": 0.1}, "evaluate_every": 4, "signals_every": 5,
            "save_every_steps": 3, "save_every_s": None,
        }  # fmt: skip
        decided = Choices(**settled | (choices or {}))
        write_json(run.plan, {"decisions": [], "choices": decided.model_dump(mode="json")})
        with run.lock():
            pass
        return recipe, run

    return make
