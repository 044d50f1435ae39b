"""The encoder and the recurrent reader: padding is not read, one answer or one a position, tied words."""

import math

import pytest
import torch

from danlu.base.contracts import Batch, DataCard
from danlu.base.errors import UserError
from danlu.models.encoder_settings import Encoder
from danlu.models.recurrent_settings import Recurrent
from danlu.models.token_table import TokenTable

FEATURES = {"vocab_size": 20, "context": 12, "texts_with": [list(range(20)), [1] * 20, list(range(19, -1, -1))]}
SETTINGS = [
    Encoder(width=16, n_heads=2, pool=pool, norm=norm, positions=positions, dropout=0.0)
    for pool, norm, positions in (("mean", "pre", "learned"), ("max", "post", "none"), ("first", "pre", "sinusoids"))
]
SETTINGS += [Encoder(width=16, n_heads=2, neighbours=2, positions="none", dropout=0.0)]
SETTINGS += [
    Recurrent(width=6, embedding=8, n_layers=2, directions="both", pool=pool, cell=cell, bag=bag)
    for pool, cell, bag in (("max", "lstm", "none"), ("last", "gru", "fresh"), ("mean", "rnn", "naive Bayes"))
]
IDS = [f"{s.kind}-{s.pool}-{i}" for i, s in enumerate(SETTINGS)]


def card(**features):
    return DataCard(
        kind="sentences", source="x", rows_in=0, rows_used=0, rows_rejected={}, features=FEATURES | features
    )


def batch_of(rows, n, grams=False):
    tokens = torch.tensor([[*row, *[0] * (n - len(row))] for row in rows])
    tensors = {"tokens": tokens, "lengths": torch.tensor([len(row) for row in rows])}
    if grams:
        tensors["grams"] = (tokens[..., None] * torch.tensor([1, 3])) % 9
    return Batch(tensors, len(rows))


ROWS = [[5, 6, 7], [8, 9, 10, 11, 12], [13]]


@pytest.mark.parametrize("settings", SETTINGS, ids=IDS)
@pytest.mark.parametrize("features", [{}, {"grams": 9}, {"per_position": True}], ids=["plain", "grams", "positions"])
def test_padding_changes_nothing(settings, features):
    model = settings.build(card(**features), 3, 0).eval()
    spelled = "grams" in features
    together = model(batch_of(ROWS, 9, spelled)).scores
    for i, row in enumerate(ROWS):
        alone = model(batch_of([row], len(row), spelled)).scores[0]
        found = together[i, : len(row)] if "per_position" in features else together[i]
        assert torch.allclose(alone, found, atol=1e-5)
    assert together.shape == ((3, 9, 3) if "per_position" in features else (3, 3))


def test_both_directions_are_read_and_agree_with_packing():
    model = Recurrent(width=6, embedding=8, directions="both").build(card(), 3, 0).eval()
    batch = batch_of(ROWS, 9)
    plain = torch.nn.LSTM(8, 6, batch_first=True, bidirectional=True)
    ways = model.reader.ahead[0], model.reader.back[0]
    plain.load_state_dict({**ways[0].state_dict(), **{f"{k}_reverse": v for k, v in ways[1].state_dict().items()}})
    lengths = batch.tensors["lengths"]
    packed = torch.nn.utils.rnn.pack_padded_sequence(
        model.table(batch.tensors), lengths, batch_first=True, enforce_sorted=False
    )
    wanted, _ = torch.nn.utils.rnn.pad_packed_sequence(plain(packed)[0], batch_first=True, total_length=9)
    found = model.reader(model.table(batch.tensors), lengths)
    for i, n in enumerate(lengths):
        assert torch.allclose(found[i, :n], wanted[i, :n], atol=1e-5)


def test_hidden_words_are_told_through_the_table_of_words():
    model = Encoder(width=16, n_heads=2).build(card(per_position=True, fills=True), 20, 0).eval()
    output = model(batch_of(ROWS, 5))
    assert output.scores is None
    assert output.features.shape == (3, 5, 16)
    assert output.head_weight is model.table.words.weight


def test_a_dropped_token_is_unknown_and_has_no_spelling():
    torch.manual_seed(0)
    table = TokenTable(FEATURES | {"grams": 9}, 8, 0.5, 1.0)
    unknown = table.words.weight[1]
    x = table(batch_of([list(range(2, 12))] * 50, 10, grams=True).tensors)
    dropped = (x == unknown).all(-1)
    assert 0.4 < float(dropped.float().mean()) < 0.6
    assert not (table.eval()(batch_of([list(range(2, 12))], 10, grams=True).tensors) == unknown).all(-1).any()


def test_n_grams_are_summed_over_the_root_of_their_number():
    table = TokenTable(FEATURES | {"grams": 9}, 8, 0.0, 1.0)
    tensors = {"tokens": torch.tensor([[7]]), "grams": torch.tensor([[[2, 5, 5, 0]]])}
    rows = table.grams.weight
    wanted = table.words.weight[7] + (rows[2] + 2 * rows[5]) / 3**0.5
    assert torch.allclose(table(tensors)[0, 0], wanted, atol=1e-6)


def test_what_cannot_be_built_is_refused():
    with pytest.raises(UserError, match="multiple of"):
        Encoder(width=10, n_heads=4).build(card(), 2, 0)
    with pytest.raises(UserError, match="reads tokens"):
        Encoder().build(DataCard(kind="table", source="x", rows_in=0, rows_used=0, rows_rejected={}), 2, 0)


def test_the_bag_starts_as_half_of_naive_bayes():
    counts = [[0, 0, 0, 0, 3, 1], [0, 0, 0, 0, 1, 5]]
    features = {"vocab_size": 6, "context": 4, "texts_with": counts}
    model = Recurrent(bag="naive Bayes").build(card(**features), 1, 0)
    (n, p) = (sum(c + 1 for c in row) for row in counts)
    wanted = 0.5 * math.log((6 / p) / (2 / n))
    assert model.bag.table.weight[5, 0].item() == pytest.approx(wanted, rel=1e-5)
    bare = DataCard(kind="sentences", source="x", rows_in=0, rows_used=0, rows_rejected={}, features={"vocab_size": 6})
    with pytest.raises(UserError, match=r"model\.bag needs counts"):
        Recurrent(bag="naive Bayes").build(bare, 1, 0)
