"""Protein structures: what the readers make of clean, odd and broken files."""

import gzip
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from danlu.base.errors import UserError
from danlu.data.order import Bucketed, Order
from danlu.data.structure import Structure
from danlu.data.structure_chains import chains_of
from danlu.data.structure_read import Broken, read_entry

Row = tuple[str, str, str, int, str, tuple[float, float, float], float, str]


def quiet(what: str, done: float, total: float) -> None:
    """No progress."""


def folder_of(place: Path) -> Path:
    place.mkdir(parents=True, exist_ok=True)
    return place


def line(
    serial: int, name: str, residue: str, number: int, place: Any, *, alternate: str = "", chain: str = "A",
    insertion: str = "", occupancy: float = 1.0, record: str = "ATOM",
) -> str:  # fmt: skip
    x, y, z = place
    return (
        f"{record:<6}{serial:5}  {name:<3}{alternate or ' '}{residue:>3} {chain}{number:4}{insertion or ' '}   "
        f"{x:8.3f}{y:8.3f}{z:8.3f}{occupancy:6.2f}{10:6.2f}           {name[0]}"
    )


def residue(number: int, kind: str = "ALA", at: float | None = None, **more: Any) -> list[str]:
    """N, CA, C of a straight chain: neighbours 3.8 apart, C to N 1.33."""
    x = 3.8 * (number if at is None else at)
    places = {"N": (x - 1.2, 0.5, 0.0), "CA": (x, 0.0, 0.0), "C": (x + 1.27, 0.5, 0.1)}
    return [line(1, name, kind, number, place, **more) for name, place in places.items()]


def pdb(folder: Path, lines: list[str], name: str = "x.pdb", end: bool = True) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("\n".join([*lines, *(["TER", "END"] if end else []), ""]), encoding="ascii")
    return folder / name


def chain(path: Path, models: str = "first") -> Any:
    return chains_of(read_entry(path), path.name, models).proteins[0]


def plain(n: int = 6) -> list[str]:
    return [text for i in range(1, n + 1) for text in residue(i)]


def test_alternates_by_occupancy_then_letter(tmp_path: Path) -> None:
    rows = plain(2)
    for letter, occupancy, y in (("B", 0.6, 7.0), ("A", 0.4, 5.0)):
        rows += [
            line(1, name, "SER", 3, (11.4 + dx, y, 0), alternate=letter, occupancy=occupancy)
            for name, dx in (("N", -1.2), ("CA", 0), ("C", 1.2))
        ]
    found = chain(pdb(tmp_path, rows))
    assert found.sequence == "AAS"
    assert found.atoms[2, 1, 1] - found.atoms[0, 1, 1] == pytest.approx(7.0)
    tied = [r.replace("  0.60", "  0.50").replace("  0.40", "  0.50") for r in rows]
    found = chain(pdb(tmp_path, tied))
    assert found.atoms[2, 1, 1] - found.atoms[0, 1, 1] == pytest.approx(5.0)


def test_alternates_may_be_different_residues(tmp_path: Path) -> None:
    rows = plain(2) + [
        line(1, name, kind, 3, (11.4 + dx, y, 0), alternate=letter, occupancy=occupancy)
        for letter, kind, occupancy, y in (("A", "SER", 0.3, 0.0), ("B", "PRO", 0.7, 1.0))
        for name, dx in (("N", -1.2), ("CA", 0), ("C", 1.2))
    ]
    assert chain(pdb(tmp_path, rows)).sequence == "AAP"


def test_insertions_and_gaps_are_numbered(tmp_path: Path) -> None:
    rows = residue(1) + residue(2) + residue(2, at=3, insertion="A") + residue(3, at=4) + residue(10, at=11)
    found = chain(pdb(tmp_path, rows))
    assert found.index.tolist() == [1, 2, 3, 4, 11]  # an inserted residue moves what follows; ten minus three is a gap
    skips = residue(1) + residue(2) + residue(40, at=3)
    assert chain(pdb(tmp_path, skips)).index.tolist() == [1, 2, 3]  # a bond says more than a number


def test_missing_residues_have_a_place_and_no_atoms(tmp_path: Path) -> None:
    names = "GLY ALA ALA SER SER VAL ALA".split()  # noqa: SIM905
    rows = [f"SEQRES   1 A    7  {' '.join(names)}", *residue(2), *residue(3), *residue(6, "VAL"), *residue(7)]
    path = pdb(tmp_path, rows)
    found = chain(path)
    assert (found.sequence, found.index.tolist()) == ("GAASSVA", [1, 2, 3, 4, 5, 6, 7])
    assert found.known[:, 1].tolist() == [False, True, True, False, False, True, True]
    dropped = Structure(path=str(path), min_length=1, missing="drop")
    split = dropped.read(tmp_path, None, [str(path)])  # type: ignore[arg-type]
    assert split.batch(np.array([0])).tensors["residue_index"].tolist() == [[2, 3, 6, 7]]
    wrong = [rows[0].replace("GLY", "TRP").replace("VAL", "TRP"), *rows[1:]]
    entry = read_entry(pdb(tmp_path, wrong))
    assert "set aside" in chains_of(entry, "x", "first").notes[0]


def test_missing_atoms_are_masked_and_cb_is_completed(tmp_path: Path) -> None:
    rows = [r for r in plain(4) if not (r[12:16].strip() == "C" and int(r[22:26]) == 3)]
    found = chain(pdb(tmp_path, rows))
    assert found.known.tolist() == [[True] * 4, [True] * 4, [True, True, False, False], [True] * 4]
    assert found.n_framed == 3
    assert (found.atoms[2, 2:] == 0).all()


def test_modified_residues_come_from_their_parents(tmp_path: Path) -> None:
    rows = ["MODRES 1XXX ZZZ A    2  LYS  SOMETHING"]
    rows += residue(1) + residue(2, "ZZZ", record="HETATM") + residue(3, "MSE", record="HETATM") + residue(4, "UNK")
    found = chain(pdb(tmp_path, rows))
    assert (found.sequence, found.n_modified) == ("AKMX", 2)


def test_what_is_no_protein_is_counted(tmp_path: Path) -> None:
    rows = [*plain(6), "TER", *residue(90, "HOH", record="HETATM"), *residue(91, "HEM", record="HETATM")]
    rows += [line(1, "P", "DA", i, (i, 0, 0), chain="D") for i in range(1, 4)]
    pdb(tmp_path / "d", rows)
    card = Structure(path=str(tmp_path / "d"), min_length=3, split={"validation": 0.0, "test": 0.0}).prepare(  # type: ignore[arg-type]
        folder_of(tmp_path / "out"), 0, quiet
    )
    assert card.stations[1].n_dropped == {"water": 1, "ligand": 1}
    assert (card.rows_in, card.rows_used, card.rows_rejected) == (2, 1, {"nucleic acid": 1})


def test_models(tmp_path: Path) -> None:
    rows = ["MODEL        1", *plain(), "ENDMDL", "MODEL        2", *plain(), "ENDMDL"]
    path = pdb(tmp_path, rows)
    first, every = (chains_of(read_entry(path), "x.pdb", models) for models in ("first", "all"))
    assert ([c.name for c in first.proteins], first.n_models_left) == (["x.pdb:A"], 1)
    assert [c.name for c in every.proteins] == ["x.pdb:A:1", "x.pdb:A:2"]


BROKEN = {
    "an atom without places": ([*plain(), "ATOM      1  CA  ALA A   7      1.0"], "broken line"),
    "a letter for a number": ([*plain(5), plain()[-1].replace("0.500", "0.5x0")], "broken line"),
    "not a number": ([*plain(5), plain()[-1].replace("   0.500", "     nan")], "broken line"),
    "no end": (["SEQRES   1 A    6  ALA ALA ALA ALA ALA ALA", *plain()], "truncated"),
}


@pytest.mark.parametrize(("lines", "reason"), BROKEN.values(), ids=BROKEN)
def test_broken_pdb_files(lines: list[str], reason: str, tmp_path: Path) -> None:
    with pytest.raises(Broken) as error:
        read_entry(pdb(tmp_path, lines, end="END" not in lines and reason != "truncated"))
    assert error.value.reason == reason


def test_a_broken_file_does_not_stop_the_others(tmp_path: Path) -> None:
    folder = tmp_path / "d"
    pdb(folder, plain(), "good.pdb")
    pdb(folder, [*plain()[:5], plain()[5][:40]], "bad.pdb")
    pdb(folder, ["REMARK nothing here"], "empty.pdb")
    (folder / "binary.pdb").write_bytes(b"\xff\xfe\0\0" * 30)
    (folder / "cut.pdb.gz").write_bytes(gzip.compress((folder / "good.pdb").read_bytes())[:-12])
    (folder / "whole.pdb.gz").write_bytes(gzip.compress((folder / "good.pdb").read_bytes()))
    source = Structure(path=str(folder), min_length=3, split={"validation": 0.0, "test": 0.0})  # type: ignore[arg-type]
    card = source.prepare(folder_of(tmp_path / "out"), 0, quiet)
    assert (card.rows_in, card.rows_used) == (6, 2)
    assert card.rows_rejected == {"not text": 1, "broken line": 1, "truncated": 1, "no protein chain": 1}
    with pytest.raises(UserError, match=r"bad\.pdb"):
        source.read(tmp_path, card, [str(folder / "bad.pdb")])


CIF = """data_TEST
#
_entry.id TEST
#
loop_
_entity_poly_seq.entity_id
_entity_poly_seq.num
_entity_poly_seq.mon_id
1 1 GLY
1 2 ALA
1 3 MSE
1 4 SER
1 5 VAL
#
_struct.title 'it''s a "test"'
_struct.text
;several
lines
;
#
loop_
_atom_site.group_PDB
_atom_site.label_atom_id
_atom_site.label_alt_id
_atom_site.label_comp_id
_atom_site.label_asym_id
_atom_site.label_entity_id
_atom_site.label_seq_id
_atom_site.Cartn_x
_atom_site.Cartn_y
_atom_site.Cartn_z
_atom_site.occupancy
_atom_site.auth_seq_id
_atom_site.auth_asym_id
_atom_site.pdbx_PDB_model_num
ATOM N . ALA A 1 2 1.0 0.5 0.0 1.0 12 X 1
ATOM CA . ALA A 1 2 2.2 0.0 0.0 1.0 12 X 1
ATOM C . ALA A 1 2 3.4 0.6 0.1 1.0 12 X 1
HETATM N . MSE A 1 3 4.6 0.5 0.0 1.0 13 X 1
HETATM CA 1 MSE A 1 3 5.8 0.0 0.0 0.4 13 X 1
HETATM CA 2 MSE A 1 3 5.8 1.0 0.0 0.6 13 X 1
HETATM C . MSE A 1 3 7.0 0.5 0.0 1.0 13 X 1
ATOM N . VAL A 1 5 12.0 0.5 0.0 1.0 15 X 1
ATOM "CA" . VAL A 1 5 13.2 0.0 0.0 1.0 15 X 1
ATOM C . VAL A 1 5 14.4 0.5 0.2 1.0 15 X 1
HETATM O . HOH B 2 . 9.0 9.0 9.0 1.0 101 X 1
#
"""


def test_mmcif(tmp_path: Path) -> None:
    (tmp_path / "t.cif").write_text(CIF)
    entry = read_entry(tmp_path / "t.cif")
    found = chains_of(entry, "t.cif", "first").proteins[0]
    assert (found.name, found.sequence) == ("t.cif:X", "GAMSV")
    assert found.known[:, 1].tolist() == [False, True, True, False, True]
    assert found.index.tolist() == [1, 2, 3, 4, 5]
    assert found.atoms[2, 1, 1] - found.atoms[1, 1, 1] == pytest.approx(1.0)
    assert entry.left_out == {"water": 1}


@pytest.mark.parametrize("cut", range(60, len(CIF) - 4, 37))
def test_a_truncated_mmcif_is_found_wherever_it_is_cut(cut: int, tmp_path: Path) -> None:
    if CIF[:cut].count("\n#") < 3:
        return  # too early to hold an atom
    (tmp_path / "t.cif").write_text(CIF[:cut])
    with pytest.raises(Broken):
        read_entry(tmp_path / "t.cif")


def three(tmp_path: Path, **settings: Any) -> Any:
    folder = tmp_path / "d"
    for name, kind in (("1AAA", "ALA"), ("2BBB", "ALA"), ("3CCC", "SER"), ("4DDD", "VAL")):
        pdb(folder, [r for i in range(1, 7) for r in residue(i, kind)], f"{name}.pdb")
    source = Structure(path=str(folder), min_length=3, **settings)
    return source, lambda: source.prepare(folder_of(tmp_path / "out"), 0, quiet)


def test_splits_by_list_and_what_they_refuse(tmp_path: Path) -> None:
    lists = {"kind": "lists", "train": ["1aaa", "3CCC:A"], "test": ["2BBB"]}
    source, prepare = three(tmp_path, split=lists)
    card = prepare()
    assert {name: c.n_samples for name, c in card.splits.items()} == {"train": 2, "test": 1}
    assert card.rows_rejected == {"not in the lists of data.split": 1}
    assert card.leakage["n_held_out_copies_of_training_chains"] == 1
    assert "2BBB.pdb:A and 1AAA.pdb:A" in card.warnings[0]
    opened = source.open(tmp_path / "out", card, "train")
    assert [opened.name(i) for i in range(2)] == ["1AAA.pdb:A", "3CCC.pdb:A"]
    for wrong, said in (({"train": ["9ZZZ"]}, "9ZZZ"), ({"train": ["1AAA"], "test": ["1AAA:A"]}, "1AAA")):
        with pytest.raises(UserError, match=said):
            three(tmp_path, split={"kind": "lists", **wrong})[1]()


@pytest.mark.parametrize("seed", range(4))
def test_equal_sequences_stay_together(seed: int, tmp_path: Path) -> None:
    source, _ = three(tmp_path, split={"validation": 0.34, "test": 0.34})
    card = source.prepare(folder_of(tmp_path / "out"), seed, quiet)
    assert card.leakage["n_held_out_copies_of_training_chains"] == 0
    assert sum(c.n_samples for c in card.splits.values()) == 4


def test_long_chains_are_left_out_or_cut_by_the_seed(tmp_path: Path) -> None:
    folder = tmp_path / "d"
    pdb(folder, plain(30))
    whole = {"path": str(folder), "max_length": 10, "split": {"validation": 0.0, "test": 0.0}}
    with pytest.raises(UserError, match="longer than"):
        Structure(**whole).prepare(folder_of(tmp_path / "a"), 0, quiet)  # type: ignore[arg-type]
    source = Structure(**whole, longer="crop")  # type: ignore[arg-type]
    card = source.prepare(folder_of(tmp_path / "b"), 0, quiet)
    split = source.open(tmp_path / "b", card, "train")
    rows = np.zeros(3, np.int64)
    made = split.batch(rows, np.array([0, 5, 26], np.uint64)).tensors["residue_index"]
    assert made[:, 0].tolist() == [1, 6, 6]
    assert made.shape == (3, 10)
    assert split.batch(rows).tensors["residue_index"][:, 0].tolist() == [1, 1, 1]


def test_sequences_can_be_asked_for(tmp_path: Path) -> None:
    (tmp_path / "two.fasta").write_text(">one x\nacd\nEF\n>two\nGHIK\n")
    source = Structure(path=str(tmp_path))
    split = source.read(tmp_path, None, ["MKV LL", str(tmp_path / "two.fasta")])  # type: ignore[arg-type]
    assert [split.name(i) for i in range(3)] == ["sequence 1", "two.fasta:one", "two.fasta:two"]
    batch = split.batch(np.arange(3))
    assert batch.tensors["inside"].sum(1).tolist() == [5, 5, 4]
    assert batch.n_targets == 0
    with pytest.raises(UserError, match="max_length"):
        source.read(tmp_path, None, ["A" * 300])  # type: ignore[arg-type]


def test_a_batch_is_not_one_chain_several_times() -> None:
    order = Bucketed(Order(8, 4, 0), np.array([9, 3, 7, 1, 8, 2, 6, 4]))
    for step in range(0, 40, 2):
        one, other = (order.at(s)[0] for s in (step, step + 1))
        assert sorted([*one, *other]) == list(range(8))
        assert {len(set(order.lengths[ids] > 5)) for ids in (one, other)} == {1}


@pytest.mark.data
def test_real_files(tmp_path: Path) -> None:
    if "DANLU_DATA" not in os.environ:
        pytest.skip("DANLU_DATA is not set")
    source = Structure(path="$DANLU_DATA/pdb_structures")
    card = source.prepare(tmp_path, 0, quiet)
    assert (card.rows_in, card.rows_used, card.rows_rejected) == (61, 60, {"nucleic acid": 1})
    for side in card.splits:
        split = source.open(tmp_path, card, side)
        for row in range(len(split)):
            tensors = {k: v[0].numpy() for k, v in split.batch(np.array([row])).tensors.items() if k != "lengths"}
            known, ca = tensors["known"][:, 1], tensors["atoms"][:, 1]
            step = np.linalg.norm(np.diff(ca, axis=0), axis=1)[known[1:] & known[:-1]]
            assert np.median(step) == pytest.approx(3.8, abs=0.1), split.name(row)
