"""The report from evidence to file: what it claims, what it survives, how big it gets. No browser here."""

from __future__ import annotations

import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from fake_run import HOSTILE, put, scores, write_run

from danlu.base.runfolder import RunFolder
from danlu.stages.report import report
from danlu.stages.report_curves import Training, bucket_starts, curves, event_kind, read_training, smoothed
from danlu.stages.report_evidence import gather, read_origins
from danlu.stages.report_html import Html, data_block, duration, fixed, number, size, tag
from danlu.stages.report_verdict import findings, verdict

np = pytest.importorskip("numpy")


class Page(HTMLParser):
    """The page as a browser's parser would see it: tags in order, the text, and the scripts' own text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.scripts: list[str] = []
        self.inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.inside = tag if tag in ("script", "style") else ""

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""

    def handle_data(self, data: str) -> None:
        if self.inside == "script":
            self.scripts.append(data)
        elif not self.inside:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def page_of(folder: Path) -> tuple[str, Page]:
    text = report(RunFolder(folder)).read_text(encoding="utf-8")
    return text, Page(text)


def said(folder: Path) -> str:
    return re.sub("<[^>]*>", "", verdict(gather(RunFolder(folder))))


def test_the_page_holds_every_part(tmp_path: Path) -> None:
    text, page = page_of(write_run(tmp_path))
    ids = {attributes.get("id") for name, attributes in page.tags if name == "section"}
    assert ids == {
        "scorecard", "learning", "layers", "time", "samples", "data", "decisions", "events", "settings", "environment",
    }  # fmt: skip
    for expected in ("1,742", "near-duplicate (Jaccard at least 0.8): 46", "Li et al. 2025", "outside its range",
                     "threading.Lock()", "Loss spike: 3.42", "2.13.0+cpu", "measured", "backward", "57"):  # fmt: skip
        assert expected in page.text, expected
    assert "How long to train" in page.text  # the meaning of train.length, from its docstring
    assert len(text) < 1_500_000


def test_nothing_on_the_page_reaches_for_the_network(tmp_path: Path) -> None:
    text, page = page_of(write_run(tmp_path))
    for name, attributes in page.tags:
        assert name not in ("link", "iframe", "object", "embed", "base", "form")
        for key, value in attributes.items():
            assert key not in ("src", "srcset", "action", "data") or name == "figure"
            assert key != "href" or str(value).startswith("#")
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "").replace("http-equiv", "")
    assert "default-src 'none'" in text


@pytest.mark.parametrize(
    ("parts", "missing"),
    [
        ("", ["data/card.json", "plan.json", "train/metrics.jsonl", "evaluate/scores.json"]),
        ("recipe", ["data/card.json", "plan.json", "train/metrics.jsonl", "evaluate/scores.json"]),
        ("recipe data plan", ["train/metrics.jsonl", "evaluate/scores.json"]),
        ("train", ["data/card.json", "plan.json", "evaluate/scores.json"]),
        ("evaluate", ["data/card.json", "plan.json", "train/metrics.jsonl"]),
    ],
)
def test_a_run_that_is_not_finished_has_a_report_of_what_there_is(
    tmp_path: Path, parts: str, missing: list[str]
) -> None:
    _, page = page_of(write_run(tmp_path, n_steps=30, parts=parts))
    assert f"Not in this run yet: {', '.join(missing)}." in page.text
    if "evaluate" not in parts:
        assert "Not scored yet." in page.text


def test_hostile_names_and_texts_stay_text(tmp_path: Path) -> None:
    plain = Page(report(RunFolder(write_run(tmp_path / "plain", n_steps=30))).read_text(encoding="utf-8"))
    text, page = page_of(write_run(tmp_path / "hostile", n_steps=30, hostile=True))
    kinds = {name for name, _ in page.tags}
    assert "img" not in kinds
    assert kinds == {name for name, _ in plain.tags}
    assert len(page.scripts) == len(plain.scripts) == 2
    assert not any(key.startswith("on") for _, attributes in page.tags for key in attributes)
    assert "\u202e" not in text
    assert "\x00" not in text
    assert "\\u202e\\x00" in page.text
    assert "${x} {{verdict}}" in page.text
    json.loads(page.scripts[0])


def test_data_in_a_script_cannot_close_it() -> None:
    block = data_block("x", {"</script>": [HOSTILE, "<!--"]})
    assert block.count("<") == 2  # its own tags
    assert json.loads(block[block.index(">") + 1 : block.rindex("<")])["</script>"][0] == HOSTILE
    with pytest.raises(ValueError, match="JSON compliant"):
        data_block("x", [math.nan])


def test_markup_escapes_children_and_attributes() -> None:
    assert (
        tag("p", "<b>", Html("<i>"), None, title='"><x', hidden=False) == '<p title="&quot;&gt;&lt;x">&lt;b&gt;<i></p>'
    )
    assert tag("pre", "a\tb\n\ud800") == "<pre>a\tb\n\\ud800</pre>"


@pytest.mark.parametrize(
    ("value", "half", "expected"),
    [
        (1.4721, 0.0183, "Validation 1.472 bits per byte [1.454, 1.490], 0.270 below the best baseline (xz, 1.742)."),
        (1.7300, 0.0200, "0.012 below the best baseline (xz, 1.742), but the intervals overlap: better is not shown."),
        (1.9000, 0.0100, "0.158 above the best baseline (xz, 1.742): it has not beaten it."),
    ],
)
def test_the_verdict_says_what_the_intervals_allow(tmp_path: Path, value: float, half: float, expected: str) -> None:
    write_run(tmp_path, n_steps=30)
    found = scores(False)
    found["metrics"]["bits_per_byte"] |= {"value": value, "low": value - half, "high": value + half}
    put(tmp_path / "evaluate" / "scores.json", found)
    assert expected in said(tmp_path)
    assert "A 1.04M-parameter decoder trained on python-stdlib for 30 steps" in said(tmp_path)


def test_higher_is_better_for_an_accuracy(tmp_path: Path) -> None:
    write_run(tmp_path, n_steps=30)
    found = scores(False)
    found["metrics"] = {"accuracy": {"value": 0.91, "low": 0.90, "high": 0.92}}
    found["baselines"] = {"majority": {"accuracy": {"value": 0.5, "low": 0.5, "high": 0.5}}}
    put(tmp_path / "evaluate" / "scores.json", found)
    assert "0.4100 above the best baseline (majority, 0.5000)." in said(tmp_path)


def test_findings_name_what_a_person_should_look_at(tmp_path: Path) -> None:
    texts = {f.text: f.tone for f in findings(gather(RunFolder(write_run(tmp_path))))}
    assert next(
        t for t in texts if "Training ran into trouble 2 times (marked on the curve), first: Update skipped" in t
    )
    assert texts["Every row is accounted for: 1,742 read = 1,626 used + 116 rejected."] == "good"
    assert any(text.startswith("optimizer.lr: chosen by a law outside the range") for text in texts)
    assert any("longer training would probably help" in text for text in texts)


def test_rows_that_do_not_add_up_are_said(tmp_path: Path) -> None:
    write_run(tmp_path, n_steps=30)
    path = tmp_path / "data" / "card.json"
    put(path, json.loads(path.read_text()) | {"rows_used": 1600})
    assert any("do not add up" in f.text for f in findings(gather(RunFolder(tmp_path))) if f.tone == "warn")


@pytest.mark.parametrize("file", ["plan.json", "data/card.json", "evaluate/scores.json", "manifest.json"])
@pytest.mark.parametrize("content", ["{", "[]", '{"decisions": 5, "metrics": 5, "rows_in": "x", "stages": 3}'])
def test_a_broken_file_is_told_and_left_out(tmp_path: Path, file: str, content: str) -> None:
    write_run(tmp_path, n_steps=30)
    (tmp_path / file).write_text(content)
    _, page = page_of(tmp_path)
    if file != "manifest.json":
        assert Path(file).name in page.text
        assert "not" in page.text


def test_a_broken_recipe_is_told(tmp_path: Path) -> None:
    write_run(tmp_path, n_steps=30)
    (tmp_path / "recipe.full.toml").write_text("a = [")
    _, page = page_of(tmp_path)
    assert "recipe.full.toml cannot be read" in page.text


def test_a_torn_last_line_is_left_out(tmp_path: Path) -> None:
    path = write_run(tmp_path, n_steps=30) / "train" / "metrics.jsonl"
    path.write_bytes(path.read_bytes()[:-40] + b"\xff\xfe")
    training = read_training(path)
    assert training is not None
    assert (training.n_steps, training.n_broken) == (29, 1)
    page_of(tmp_path)


def test_a_row_without_a_step_adds_its_events_to_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": 2.0, "elapsed_s": 1.0}\n{"events": ["Resumed from step-00000001."]}\n')
    training = read_training(path)
    assert training is not None
    assert training.events == [(1, 1.0, "Resumed from step-00000001.")]


def test_steps_done_again_after_a_resume_count_once() -> None:
    training = Training()
    for step, loss in [(1, 9.0), (2, 8.0), (3, 7.0), (2, 5.0), (3, 4.0)]:
        training.add({"step": step, "loss": loss, "elapsed_s": float(step), "validation": {"loss": loss}})
    assert training.columns["loss"].tolist() == [9.0, 5.0, 4.0]
    assert [v[2]["loss"] for v in training.validations.items] == [9.0, 5.0, 4.0]


def test_a_spike_of_one_step_survives_thinning() -> None:
    training = Training()
    for step in range(1, 50_001):
        training.add({"step": step, "loss": 99.0 if step == 31_337 else 1.0, "elapsed_s": step / 10, "lr": 0.1})
    drawn = curves(training)
    assert len(drawn["step"]) <= 950
    assert drawn["step"][-1] == 50_000
    assert max(drawn["loss_high"]) == 99.0
    assert drawn["step"][:20] == list(range(1, 21))  # the logarithmic view begins step by step
    assert max(drawn["loss"]) < 2.0


def test_a_loss_that_is_not_finite_becomes_a_gap() -> None:
    training = Training()
    for step, loss in [(1, 1.0), (2, None), (3, math.inf), (4, 2.0)]:
        training.add({"step": step, "loss": loss, "elapsed_s": 1.0})
    assert curves(training)["loss_high"] == [1.0, None, None, 2.0]
    json.dumps(curves(training), allow_nan=False)


def test_buckets_cover_every_row_once() -> None:
    for n in (1, 2, 949, 950, 951, 5_000, 1_000_000):
        starts = bucket_starts(n)
        assert starts[0] == 0
        assert starts[-1] < n
        assert np.all(np.diff(starts) > 0)
        assert len(starts) <= 950


def test_smoothing_keeps_a_straight_line_and_skips_gaps() -> None:
    line = np.linspace(5.0, 1.0, 1001)
    assert np.allclose(smoothed(line)[20:-20], line[20:-20])
    line[500] = np.nan
    assert np.isfinite(smoothed(line)).all()


def test_a_million_steps_stay_small(tmp_path: Path) -> None:
    write_run(tmp_path, n_steps=300)
    training = read_training(tmp_path / "train" / "metrics.jsonl")
    assert training is not None
    row = {"loss": 2.1234567, "lr": 1.23e-4, "grad_norm": 0.77123, "n_targets": 4096, "per_s": 51234.5,
           "times": {"data": 0.0012, "forward": 0.0213, "backward": 0.0422, "optimizer": 0.0049}}  # fmt: skip
    layers = {f"blocks.{i}.{part}": {"grad_norm": 0.1, "update_ratio": 1e-3} for i in range(48) for part in "am"}
    for step in range(301, 100_001):
        row |= {"step": step, "elapsed_s": step * 0.071234, "loss": 2 + math.sin(step)}
        training.add(row | {"layers": layers} if step % 50 == 0 else row)
    drawn = curves(training)
    assert len(drawn["step"]) <= 950
    assert len(drawn["layers"]["step"]) <= 160
    assert len(json.dumps(drawn)) < 700_000  # bounded by buckets, whatever the number of steps


def test_events_beyond_the_limit_are_counted(tmp_path: Path) -> None:
    write_run(tmp_path, n_steps=30)
    row = {"step": 31, "loss": 1.0, "elapsed_s": 9.0, "events": [f"Checkpoint {i} saved." for i in range(500)]}
    with (tmp_path / "train" / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")
    _, page = page_of(tmp_path)
    assert re.search(r"And \d+ more in train/metrics.jsonl", page.text)
    assert "Loss spike" in page.text


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("loss spike at step 4: 9 is 12.0 robust deviations above the last 100 losses", "trouble"),
        ("dead units at step 30: 60% of blocks.1.mlp is 0 on the whole batch", "trouble"),
        ("Resumed from step-00000200.", "resumed"),
        ("Checkpoint step-00000200 saved.", "saved"),
        ("validation loss 1.4600 reached the target 1.47 at step 900", "note"),
    ],
)
def test_events_are_told_apart(text: str, kind: str) -> None:
    assert event_kind(text) == kind


def test_origins_are_read_past_hashes_in_strings_and_from_numbered_tables() -> None:
    text = (
        'a = "x # y"  # given\n[s]\nb = 1  # derived: from a # b\nc = "\\"#"  # default\n'
        '[[data.clean]]\nkind = "unicode"  # default\n[[data.clean]]\nkind = "pii"  # given\n'
    )
    assert read_origins(text) == {
        "a": "given", "s.b": "derived: from a # b", "s.c": "default",
        "data.clean.0.kind": "default", "data.clean.1.kind": "given",
    }  # fmt: skip


def test_numbers_read_well() -> None:
    assert [number(v) for v in (0.0042, 16, 7_100_000, 1.0, True, "x", [0.9, 0.95])] == [
        "0.0042", "16", "7,100,000", "1", "true", "x", "[0.9, 0.95]",
    ]  # fmt: skip
    assert [duration(s) for s in (0.0061, 42.0, 181.4, 90061.0)] == ["6.1 ms", "42 s", "3 min 1 s", "25 h 1 min"]
    assert [fixed(v, 1.472) for v in (1.49, 1.4)] == ["1.490", "1.400"]
    assert [size(v) for v in (12, 25431822, 8.3e9)] == ["12 bytes", "25.4 MB", "8.3 GB"]
