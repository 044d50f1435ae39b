"""Conversations: what is supervised, what is rejected, and that nothing is lost."""

import json

import numpy as np
import pytest

import danlu
from danlu.base.errors import UserError
from danlu.data.chat import Chat, turns_of

TURNS = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello!"},
]


def quiet(what, done, total):
    pass


def prepared(tmp_path, lines, **settings):
    (tmp_path / "chat.jsonl").write_bytes(b"\n".join(lines))
    source = Chat(path=str(tmp_path / "chat.jsonl"), tokenizer={"kind": "bytes"}, validation=0.0, **settings)
    folder = tmp_path / "data"
    folder.mkdir(exist_ok=True)
    return source, folder, source.prepare(folder, 0, quiet)


def test_only_what_the_assistant_says_is_a_target(tmp_path):
    source, folder, card = prepared(tmp_path, [json.dumps({"messages": TURNS}).encode()])
    batch = source.open(folder, card, "train").batch(np.array([0]))
    targets = batch.tensors["targets"][0]
    said = bytes(t for t in targets.tolist() if 0 <= t < 256).decode()
    assert said == "Hello!"
    assert targets[targets >= 0][-1] == card.document_end
    assert batch.n_targets == len("Hello!") + 1
    read = bytes(t for t in batch.tensors["tokens"][0].tolist() if t < 256).decode()
    assert read == "<|system|>\nBe kind.\n<|user|>\nHi\n<|assistant|>\nHello!"


def test_the_audit_says_the_same(tmp_path):
    _, _, card = prepared(tmp_path, [json.dumps({"messages": TURNS}).encode()])
    read = "<|system|>\nBe kind.\n<|user|>\nHi\n<|assistant|>\n"
    assert card.features["audit"] == [[[read, False], ["Hello!⏹", True]]]


def test_dirty_lines_are_counted_and_named(tmp_path):
    bad = [
        b"{broken", b"[1]", b'{"messages": []}', b'{"messages": [{"role": "king", "content": "x"}]}',
        b'{"messages": [{"role": "user", "content": "x"}]}', b'{"messages": ["x"]}', b'\xff\xfe{"messages": 3}',
        b'{"messages": [{"role": "assistant", "content": 5}]}',
    ]  # fmt: skip
    good = [
        json.dumps({"messages": TURNS}).encode(),
        b'{"prompt": "a", "response": "b"}',
        b'{"instruction": "a", "input": "b", "output": "c"}',
    ]
    _, folder, card = prepared(tmp_path, [*good, *bad])
    assert (card.rows_in, card.rows_used, sum(card.rows_rejected.values())) == (11, 3, 8)
    rows = [json.loads(line) for line in (folder / "rejected.jsonl").read_text().splitlines()]
    assert [row["row"] for row in rows] == [f"chat.jsonl:{i}" for i in range(4, 12)]


def test_a_long_conversation_is_cut_or_rejected_and_said(tmp_path):
    long = {"messages": [{"role": "user", "content": "x" * 50}, {"role": "assistant", "content": "y" * 80}]}
    lines = [json.dumps(long).encode(), json.dumps({"messages": TURNS}).encode()]
    _, _, card = prepared(tmp_path, lines, context=100)
    assert card.rows_used == 2
    assert "1 conversations" in card.warnings[0]
    _, _, card = prepared(tmp_path, lines, context=100, too_long="reject")
    assert card.rows_rejected == {"too long for data.context": 1}


def test_sharegpt_names_are_known():
    turns = turns_of({"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]})
    assert [turn.role for turn in turns] == ["user", "assistant"]


def test_nothing_to_learn_is_refused(tmp_path):
    with pytest.raises(UserError, match="at least one training conversation"):
        prepared(tmp_path, [b"{broken"])


def test_an_unset_variable_is_named():
    with pytest.raises(UserError, match="NO_SUCH_PLACE"):
        Chat(path="$NO_SUCH_PLACE/x.jsonl").files()


def test_a_chat_model_generates(tmp_path):
    lines = "\n".join(json.dumps({"prompt": f"say {i}", "response": f"{i}"}) for i in range(60))
    (tmp_path / "chat.jsonl").write_text(lines)
    run = danlu.run(
        danlu.Recipe(
            data={"kind": "chat", "path": str(tmp_path / "chat.jsonl"), "tokenizer": {"kind": "bytes"}, "context": 64},
            model={"kind": "decoder", "n_layers": 1, "width": 32, "context": 64}, task={"kind": "chat"},
            train={"length": "4 steps", "batch": 4}, optimizer={"kind": "adamw", "lr": 1e-3},
        ),
        tmp_path / "run",
    )  # fmt: skip
    assert isinstance(run.generate("<|user|>\nsay 3\n<|assistant|>\n", max_new_tokens=4), str)
    rows = run.predict([{"prompt": "say 3", "response": "3"}])
    assert rows[0]["n_tokens"] == 2
