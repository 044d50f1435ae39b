import numpy as np
import pytest

from danlu.base.contracts import DataCard, SplitCard
from danlu.base.durable import write_json
from danlu.base.errors import UserError
from danlu.data.shards import ShardWriter, dtype_for, open_split


def written(folder, documents, document_end, vocab_size=300):
    writer = ShardWriter(folder, "train", dtype_for(vocab_size), document_end)
    for batch in documents:
        ids = np.array([i for ids in batch for i in ids], dtype=np.int32)
        writer.append(ids, np.array([len(ids) for ids in batch], dtype=np.int64))
    digest = writer.finish()
    np.ones(vocab_size, dtype="<u2").tofile(folder / "token_bytes.bin")
    card = DataCard(
        kind="text", source="x", rows_in=1, rows_used=1, rows_rejected={}, vocab_size=vocab_size, dtype=dtype_for(vocab_size),
        splits={"train": SplitCard(n_documents=writer.n_documents, n_bytes=1, n_tokens=writer.n_tokens)},
    )  # fmt: skip
    write_json(folder / "card.json", card.model_dump(mode="json"))
    return digest


@pytest.mark.parametrize("document_end", [None, 299])
def test_documents_come_back(tmp_path, document_end):
    documents = [[[1, 2, 3], []], [], [[298], [7] * 1000, [0]]]
    written(tmp_path, documents, document_end)
    shard = open_split(tmp_path, "train")
    wanted = [ids + ([document_end] if document_end is not None else []) for batch in documents for ids in batch]
    found = [shard.tokens[a:b].tolist() for a, b in zip(shard.docs[:-1], shard.docs[1:], strict=True)]
    assert found == wanted
    assert (shard.n_documents, shard.n_tokens) == (5, sum(map(len, wanted)))
    assert shard.tokens.dtype == np.dtype("<u2")
    assert shard.docs.dtype == np.dtype("<u8")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["card.json", "token_bytes.bin", "train.bin", "train.docs.bin"]


def test_smallest_type():
    assert [dtype_for(n) for n in (1, 256, 257, 65536, 65537)] == ["uint8", "uint8", "uint16", "uint16", "uint32"]


def test_the_cut_into_batches_changes_no_byte(tmp_path):
    documents = [[i % 256] * (i % 7) for i in range(50)]
    digests = set()
    for name, size in (("a", 1), ("b", 8), ("c", 50)):
        (tmp_path / name).mkdir()
        digests.add(written(tmp_path / name, [documents[i : i + size] for i in range(0, 50, size)], 256))
    assert len(digests) == 1


def test_nothing_has_its_name_before_it_is_whole(tmp_path):
    writer = ShardWriter(tmp_path, "train", "uint8", None)
    writer.append(np.arange(100, dtype=np.int32), np.array([100]))
    assert not (tmp_path / "train.bin").exists()
    writer.abort()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("fault", ["cut", "longer", "missing", "docs", "split"])
def test_a_damaged_shard_is_refused(tmp_path, fault):
    written(tmp_path, [[[1, 2, 3]]], None)
    path = tmp_path / ("train.docs.bin" if fault == "docs" else "train.bin")
    if fault == "missing":
        path.unlink()
    elif fault != "split":
        data = path.read_bytes()
        path.write_bytes(data + b"\0" if fault == "longer" else data[:-1])
    with pytest.raises(UserError, match="prepare"):
        open_split(tmp_path, "test" if fault == "split" else "train")
