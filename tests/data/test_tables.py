"""Tables: types, gaps, duplicates, outliers, scales, targets; what is fitted on train alone and applied to new rows."""

import json

import numpy as np
import pytest

from danlu.base.errors import UserError
from danlu.base.runfolder import read_json
from danlu.data.table import Table
from danlu.data.table_forest import fit_forest, forest_scores, is_odd
from danlu.data.table_neighbours import fill_neighbours, fit_neighbours
from danlu.recipe import Recipe

RNG = np.random.default_rng(0)


def quiet(what, done, total):
    pass


def made(folder, lines, **settings):
    """(source, card, fitted, {split: arrays}) of a table file of these lines."""
    (folder / "t.csv").write_text("\n".join(lines))
    (folder / "out").mkdir(exist_ok=True)
    source = Table(**{"path": str(folder / "t.csv"), "target": "y"} | settings)
    card = source.prepare(folder / "out", 0, quiet)
    assert card.rows_in == card.rows_used + sum(card.rows_rejected.values())
    splits = {name: source.open(folder / "out", card, name) for name in card.splits}
    return source, card, read_json(folder / "out/preprocessing.json"), splits


def column(card, split, name):
    return split.arrays["numbers"][:, card.features["names"].index(name)]


ALL = {"split": {"kind": "random", "validation": 0.0, "test": 0.0}}


def test_types_are_inferred_and_can_be_given(tmp_path):
    lines = ["row_id,n,code,colour,day,note,y"]
    lines += [
        f"{i},{i % 7}.5,{i % 3},{'rgb'[i % 3]},2024-{i % 12 + 1:02}-05,words of row {i},{i % 2}" for i in range(90)
    ]
    _, card, fitted, _ = made(tmp_path, lines, types={"code": "category"}, **ALL)
    kinds = {c["name"]: c["kind"] for c in fitted["inputs"]}
    assert kinds == {"n": "number", "code": "category", "colour": "category", "day": "date"}
    assert [w.split()[1] for w in card.warnings[:2]] == ["row_id", "note"]
    assert "day month sin" in card.features["names"]


@pytest.mark.parametrize(
    ("missing", "fill"), [("mean", 4.0), ("median", 3.0), ("mode", 2.0), ("constant", -9.0), ("drop", None)]
)
def test_gaps_by_every_marker(tmp_path, missing, fill):
    markers = ["", "?", "NA", "none of these"]
    values = [2, 2, 3, 4, 9]  # mean 4, median 3, mode 2
    lines = ["x,c,y", *(f"{v},a,{i}" for i, v in enumerate(values * 6)), *(f"{m},b,{m and 5}" for m in ["-"])]
    lines[-1:] = [f"{m},b,5" for m in markers]
    how = {
        "missing_markers": markers,
        "missing": missing,
        "constant": -9.0,
        "normalize": "none",
        "target_kind": "number",
    }
    _, card, _, splits = made(tmp_path, lines, **how, **ALL)
    if fill is None:
        assert card.rows_rejected == {"a missing value": 4}
        return
    x, flag = column(card, splits["train"], "x"), column(card, splits["train"], "x missing")
    assert flag.sum() == 4
    assert set(x[flag == 1].tolist()) == {fill}


def test_neighbours_are_those_of_scikit_learn():
    sklearn = pytest.importorskip("sklearn.impute", reason="compares with scikit-learn, which is not installed")
    x = RNG.normal(size=(300, 4)) * [1, 1, 1, 1]
    x[:, 3] = x[:, 0] + x[:, 1]
    x /= x.std(0)
    x[RNG.random(x.shape) < 0.2] = np.nan
    x /= np.nanstd(x, 0)
    theirs = sklearn.KNNImputer(n_neighbors=5).fit(x).transform(x[:50])
    fitted = json.loads(json.dumps(fit_neighbours(x, 5)))
    rows = x[:50]
    whole = ~np.isnan(rows).all(1)
    np.testing.assert_allclose(fill_neighbours(fitted, rows)[whole], theirs[whole], rtol=1e-6, atol=1e-6)


def test_a_gap_is_filled_from_like_rows_and_again_at_predict(tmp_path):
    lines = ["a,b,y", *(f"{i % 2 * 10},{i % 2 * 100},{i}" for i in range(60)), "10,,5", "0,?,6"]
    source, card, fitted, splits = made(tmp_path, lines, missing="neighbours", normalize="none", neighbours=3, **ALL)
    b, flag = (column(card, splits["train"], n) for n in ("b", "b missing"))
    assert sorted(b[flag == 1].tolist()) == [0.0, 100.0]
    new = source.read(tmp_path / "out", card, [{"a": 10, "b": None}, {"a": 0}])
    assert column(card, new, "b").tolist() == [100.0, 0.0]
    assert len(fitted["neighbours"]["rows"]) == 62


def test_the_isolation_forest_finds_what_was_planted():
    x = RNG.normal(size=(1000, 3))
    x[:10] = RNG.normal(size=(10, 3)) * 0.2 + [6, -6, 6]
    fitted = json.loads(json.dumps(fit_forest(x, 0.01)))
    assert np.flatnonzero(is_odd(fitted, x)).tolist() == list(range(10))
    sklearn = pytest.importorskip("sklearn.ensemble", reason="compares with scikit-learn, which is not installed")
    theirs = -sklearn.IsolationForest(n_estimators=100, random_state=0).fit(x).score_samples(x)
    ours = forest_scores(fitted, x)
    assert np.corrcoef(np.argsort(np.argsort(ours)), np.argsort(np.argsort(theirs)))[0, 1] > 0.9
    assert abs(ours.mean() - theirs.mean()) < 0.02


def test_odd_rows_are_flagged_or_dropped(tmp_path):
    lines = ["a,b,y", *(f"{RNG.normal():.4f},{RNG.normal():.4f},{i}" for i in range(200)), "50,-50,1"]
    forest = {"outliers": "isolation_forest", "outlier_share": 0.005, "outlier_action": "flag"} | ALL
    source, card, _, splits = made(tmp_path, lines, **forest)
    odd = column(card, splits["train"], "odd row")
    assert splits["train"].names[int(odd.argmax())] == "t.csv:202"
    assert odd.sum() == 1
    new = source.read(tmp_path / "out", card, [{"a": 60, "b": -70}, {"a": 0, "b": 0}])
    assert column(card, new, "odd row").tolist() == [1.0, 0.0]
    _, card, _, _ = made(tmp_path, lines, **forest | {"outlier_action": "drop"})
    assert card.rows_rejected == {"an odd row by the isolation forest": 1}


@pytest.mark.parametrize("outliers", ["iqr", "z_score"])
@pytest.mark.parametrize("action", ["clip", "flag", "drop"])
def test_far_numbers(tmp_path, outliers, action):
    lines = ["a,y", *(f"{i % 10},{i}" for i in range(100)), "1000,1"]
    how = {"outliers": outliers, "outlier_action": action, "normalize": "none"} | ALL
    _, card, fitted, splits = made(tmp_path, lines, **how)
    low, high = fitted["inputs"][0]["limits"]
    x = np.array([i % 10 for i in range(100)] + [1000.0])
    q1, q3 = np.quantile(x, [0.25, 0.75])
    wanted = q3 + 3 * (q3 - q1) if outliers == "iqr" else x.mean() + 3 * x.std()
    assert high == pytest.approx(wanted)
    assert low < 0
    a = column(card, splits["train"], "a")
    if action == "clip":
        assert a.max() == pytest.approx(high, rel=1e-6)
    elif action == "flag":
        assert column(card, splits["train"], "a outlier").tolist() == [0.0] * 100 + [1.0]
    else:
        assert card.rows_rejected == {"an outlier in a": 1}
        assert a.max() == 9


SAME = ["a,b,y", "New York,1.0001,1", "new-york,1.0002,2", "Boston,1,3", "New York,1.0001,1", "Boston,2,4", "Bern,3,5"]


@pytest.mark.parametrize(
    ("how", "dropped"),
    [
        ({"duplicates": "keep"}, {}),
        ({"duplicates": "drop"}, {"a duplicate": ["t.csv:5"]}),
        ({"duplicates": "near", "near_columns": ["a", "b"]}, {"nearly a duplicate": ["t.csv:3", "t.csv:5"]}),
        ({"duplicates": "near", "near_columns": ["a"]}, {"nearly a duplicate": ["t.csv:3", "t.csv:5", "t.csv:6"]}),
        ({"duplicates": "near"}, {"nearly a duplicate": ["t.csv:5"]}),
    ],
)
def test_duplicates(tmp_path, how, dropped):
    _, card, _, _ = made(tmp_path, SAME, target_kind="number", **how, **ALL)
    assert card.rows_rejected == {why: len(rows) for why, rows in dropped.items()}
    rows = [json.loads(line) for line in (tmp_path / "out/rejected.jsonl").read_text().splitlines()]
    assert [row["row"] for row in rows] == [row for of in dropped.values() for row in of]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"outliers": "isolation_forest"}, "outlier_action"),
        ({"near_columns": ["a"]}, 'duplicates = "near"'),
    ],
)
def test_settings_that_do_not_go_together_are_refused(tmp_path, settings, said):
    lines = ["[data]", 'kind = "table"', 'path = "x.csv"', 'target = "y"', "[model]", 'kind = "mlp"']
    lines += ["[task]", 'kind = "regress"']
    lines[4:4] = [f"{name} = {json.dumps(value)}" for name, value in settings.items()]
    (tmp_path / "r.toml").write_text("\n".join(lines))
    with pytest.raises(UserError, match=said):
        Recipe.load(tmp_path / "r.toml")


def test_a_near_column_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"near_columns.*aa"):
        made(tmp_path, SAME, duplicates="near", near_columns=["aa"])


@pytest.mark.parametrize("scale", ["standard", "minmax", "robust", "quantile", "none"])
def test_scales_are_fitted_on_train_alone(tmp_path, scale):
    x = RNG.exponential(size=200)
    lines = ["a,y", *(f"{v!r},{i}" for i, v in enumerate(x.tolist()))]
    _, card, _, splits = made(tmp_path, lines, normalize=scale, split={"kind": "time", "test": 0.25, "validation": 0.0})
    train, test = (column(card, splits[s], "a") for s in ("train", "test"))
    seen = x[:150]
    q1, middle, q3 = np.quantile(seen, [0.25, 0.5, 0.75])
    plain = {
        "standard": lambda v: (v - seen.mean()) / seen.std(),
        "minmax": lambda v: (v - seen.min()) / (seen.max() - seen.min()),
        "robust": lambda v: (v - middle) / (q3 - q1),
        "none": lambda v: v,
    }
    if scale == "quantile":
        assert np.abs(np.quantile(train, [0.16, 0.5, 0.84]) - [-1, 0, 1]).max() < 0.1
        assert (np.argsort(test) == np.argsort(x[150:])).mean() > 0.9
        return
    np.testing.assert_allclose(train, plain[scale](seen), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(test, plain[scale](x[150:]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("transform", ["standard", "log1p", "none"])
def test_targets_of_several_columns_come_back_in_their_units(tmp_path, transform):
    from danlu.tasks.regress import Regress

    y = RNG.exponential(size=(60, 2)) * 50
    lines = ["a,p,q", *(f"{i % 9},{p!r},{q!r}" for i, (p, q) in enumerate(y.tolist()))]
    _, card, _, splits = made(tmp_path, lines, target=["p", "q"], target_transform=transform, **ALL)
    task = Regress()
    assert task.n_outputs(card) == 2
    found = np.array(task.truths(splits["train"].batch(np.arange(60)), card))
    np.testing.assert_allclose(found, y, rtol=1e-4)


@pytest.mark.parametrize("ending", [".tsv", ".jsonl", ".parquet", ".arrow", ".csv.gz"])
def test_every_form_of_file_gives_the_same(tmp_path, ending):
    import gzip

    import polars as pl

    rows = [{"a": i % 5, "colour": "rgb"[i % 3], "y": i * 0.5} for i in range(40)]
    text = ["a,colour,y", *(f"{r['a']},{r['colour']},{r['y']}" for r in rows)]
    _, one, _, splits = made(tmp_path, text, **ALL)
    path = tmp_path / f"t{ending}"
    if ending == ".tsv":
        path.write_text("\n".join(text).replace(",", "\t"))
    elif ending == ".jsonl":
        path.write_text("\n".join(map(json.dumps, rows)))
    elif ending == ".csv.gz":
        path.write_bytes(gzip.compress("\n".join(text).encode()))
    else:
        frame = pl.DataFrame(rows)
        frame.write_parquet(path) if ending == ".parquet" else frame.write_ipc(path)
    (tmp_path / "other").mkdir()
    source = Table(path=str(path), target="y", **ALL)
    card = source.prepare(tmp_path / "other", 0, quiet)
    assert card.features == one.features
    other = source.open(tmp_path / "other", card, "train")
    assert all(np.array_equal(other.arrays[k], v) for k, v in splits["train"].arrays.items())
