"""Hugging Face models: trained here, written back, and the same there to 1e-5."""

import json

import numpy as np
import pytest
import torch

import danlu
from danlu.base.contracts import Batch, DataCard
from danlu.base.errors import UserError
from danlu.models.hub_settings import Hub

transformers = pytest.importorskip("transformers")


@pytest.fixture
def gpt2(tmp_path):
    torch.manual_seed(1)
    config = transformers.GPT2Config(vocab_size=257, n_positions=64, n_embd=32, n_layer=2, n_head=2, resid_pdrop=0.0)
    transformers.GPT2LMHeadModel(config).save_pretrained(tmp_path / "gpt2")
    return tmp_path / "gpt2"


def card(**features):
    return DataCard(
        kind="chat", source="x", rows_in=0, rows_used=0, rows_rejected={}, vocab_size=257, features=features
    )  # fmt: skip


def test_scores_are_those_of_transformers(gpt2):
    model = Hub(path=str(gpt2)).build(card(), 257, 0).eval()
    tokens = torch.randint(0, 257, (2, 9))
    output = model(Batch({"tokens": tokens}, 1))
    theirs = transformers.AutoModelForCausalLM.from_pretrained(gpt2).eval()(tokens).logits
    torch.testing.assert_close(output.features @ output.head_weight.T, theirs, rtol=1e-5, atol=1e-5)


def test_a_bias_of_the_head_is_kept():
    from danlu.models.hub import with_bias

    head = torch.nn.Linear(5, 7)
    x = torch.randn(2, 3, 5)
    features, weight = with_bias(x, head)
    torch.testing.assert_close(features @ weight.T, head(x))


def test_trained_here_and_loaded_there(gpt2, tmp_path):
    rows = [{"prompt": f"after {i}?", "response": f"{i + 1}"} for i in range(60)]
    (tmp_path / "chat.jsonl").write_text("\n".join(map(json.dumps, rows)))
    recipe = danlu.Recipe(
        data={"kind": "chat", "path": str(tmp_path / "chat.jsonl"), "tokenizer": {"kind": "bytes"}, "context": 48},
        model={"kind": "hub", "path": str(gpt2)}, task={"kind": "chat"},
        optimizer={"kind": "adamw", "lr": 1e-3}, train={"length": "12 steps", "batch": 8, "precision": "fp32"},
    )  # fmt: skip
    run = danlu.run(recipe, tmp_path / "run")
    assert danlu.check(recipe).n_parameters == sum(p.numel() for p in run.model.parameters())
    losses = [json.loads(line)["loss"] for line in (run.path / "train/metrics.jsonl").read_text().splitlines()]
    assert losses[-1] < losses[0]
    ours, there = run.model, transformers.AutoModelForCausalLM.from_pretrained(run.path / "package/huggingface").eval()
    tokens = torch.randint(0, 257, (2, 20))
    torch.testing.assert_close(ours.model(tokens).logits, there(tokens).logits, rtol=1e-5, atol=1e-5)
    before = transformers.AutoModelForCausalLM.from_pretrained(gpt2).eval()(tokens).logits
    assert not torch.allclose(before, there(tokens).logits, atol=1e-3)


def test_padding_does_not_matter_to_a_classifier(tmp_path):
    config = transformers.BertConfig(
        vocab_size=50, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64
    )
    transformers.BertModel(config).save_pretrained(tmp_path / "bert")
    made = DataCard(
        kind="sentences", source="x", rows_in=0, rows_used=0, rows_rejected={}, vocab_size=50, features={"classes": ["a", "b", "c"]}
    )  # fmt: skip
    model = Hub(path=str(tmp_path / "bert")).build(made, 3, 0).eval()
    again = Hub(path=str(tmp_path / "bert")).build(made, 3, 0).eval()
    tokens = torch.randint(1, 50, (1, 6))
    short = model(Batch({"tokens": tokens, "lengths": torch.tensor([6])}, 1)).scores
    long = torch.cat([tokens, torch.zeros(1, 4, dtype=torch.long)], 1)
    padded = again(Batch({"tokens": long, "lengths": torch.tensor([6])}, 1)).scores
    assert short.shape == (1, 3)
    np.testing.assert_allclose(short.detach(), padded.detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("made", ["nothing", "empty", "broken"])
def test_a_folder_that_is_no_model_is_refused(made, tmp_path):
    place = tmp_path / "x"
    if made != "nothing":
        place.mkdir()
    if made == "broken":
        (place / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r"config\.json"):
        Hub(path=str(place)).build(card(), 257, 0)
