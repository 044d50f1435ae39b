"""The page's account of a plan: predictions against outcomes, evidence drawn, and whatever an old or odd plan holds."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from fake_run import HOSTILE, put, write_run
from test_report import page_of

from danlu.base.runfolder import RunFolder
from danlu.planning import evidence
from danlu.stages.report_drawings import Axis, drawing
from danlu.stages.report_evidence import gather
from danlu.stages.report_scorecard import strip
from danlu.stages.report_verdict import findings


def text_of(page: Any, section: str) -> str:
    """The words of the whole page from one section's heading on."""
    return page.text[page.text.index(section) :]


def test_the_scorecard_stands_first_and_says_all(tmp_path: Path) -> None:
    text, page = page_of(write_run(tmp_path, n_steps=30))
    ids = [attributes.get("id") for name, attributes in page.tags if name == "section"]
    assert ids[0] == "scorecard"
    for words in ("4 of 5 predictions came inside their 80% interval", "2 min 41 s to 3 min 2 s", "513 MB", "+64.4%",
                  "don't know", "not timed here", "exact", "at step 238: two forks", "hashed only at step 5"):  # fmt: skip
        assert words in page.text, words
    assert text.count('class="came"') == 3
    assert text.count('class="came out"') == 1
    told = [f.text for f in findings(gather(RunFolder(tmp_path))) if f.tone == "warn"]
    assert "Memory at its peak came to 513 MB, beyond the 95% interval around 312 MB." in told


def test_before_the_run_is_scored_predictions_stand_alone(tmp_path: Path) -> None:
    _, page = page_of(write_run(tmp_path, parts="recipe plan"))
    assert "Written down before training" in page.text
    assert "came to" not in page.text
    forecast = {"step": 7, "sentence": "It will end at 2.1.", "evidence": evidence.points("step", "loss", [(1, 3), (7, 2.5)]),
                "predictions": [{"name": "validation_loss", "value": 2.1, "low80": 2.0, "high80": 2.2}]}  # fmt: skip
    put(tmp_path / "train" / "forecast.json", forecast)
    text, page = page_of(tmp_path)
    assert "at step 7" in page.text
    assert "The end of the run, foreseen at step 7" in page.text
    assert "loss over step" in text
    forks = [{"step": 7, "loss": 2.5, "before": 2.6}, {"step": 9, "loss": 2.4}, 5]
    put(
        tmp_path / "train" / "forecast.json",
        forecast | {"curve": [[9, 2.4], [90, 2.1]], "evidence": {"forks": forks, "laws": {"bent": 2.1}}},
    )
    text, page = page_of(tmp_path)
    assert "copies of the run that were cooled down" in page.text
    assert "laws bent" in page.text


def test_a_plan_of_an_older_version_is_still_shown(tmp_path: Path) -> None:
    write_run(tmp_path, n_steps=30)
    (tmp_path / "evaluate" / "scorecard.json").unlink()
    path = tmp_path / "plan.json"
    old = {"predictions": {"train_s": 171.0, "peak_bytes": 512e6, "n_parameters": 1044736}}
    put(path, {k: v for k, v in json.loads(path.read_text()).items() if k not in ("facts", "cost")} | old)
    _, page = page_of(tmp_path)
    assert "512 MB" in page.text
    assert "1.04M-parameter" in page.text
    assert "Planning took" not in page.text
    assert any("the plan's 2 min 51 s" in f.text for f in findings(gather(RunFolder(tmp_path))))


def test_every_decision_shows_what_it_rests_on(tmp_path: Path) -> None:
    text, page = page_of(write_run(tmp_path, n_steps=30))
    words = text_of(page, "Planning took 6.1 s, 3.6% of the predicted training time.")
    for expected in ("If it is wrong: twice or half of it costs about 0.4% of the loss.", "0.03 : it diverged",
                     "validation loss after 240 steps", "Parabola in log rate", "ms a step", "41 ± 0.5", "failed"):  # fmt: skip
        assert expected in words, expected
    assert text.count('class="point"') == 4
    assert text.count('class="cross"') == 1
    assert text.count("fit-band") == text.count('"fit-band"') + 1  # drawn once; the other is the style
    assert re.search(r'class="picked"', text)


@pytest.mark.parametrize(
    "odd",
    [
        {"plot": "points", "points": [[1]], "curve": 5},
        {"plot": "points", "points": [[0, 1], [-1, 2]], "log_x": True, "chosen": 0},
        {"plot": "points", "points": [[1, None], ["x", True]], "chosen": None},
        {"plot": "points", "points": [[3, 3]], "chosen": 3},
        {"plot": "lines", "lines": [5, {"name": HOSTILE, "points": [[1, 2], [2, 2]]}]},
        {"plot": "bars", "bars": [["a", 0], ["b", -1], ["c", None], 7, ["d"]]},
        {"plot": "bars", "bars": [["a", None]]},
        {"plot": HOSTILE, "numbers": [1, 2], HOSTILE: {"deep": [{"x": 1}, 2]}},
        {"parts": [{"plot": "points"}, 5, {"plot": "bars", "bars": [["a", 1]]}]},
        {"many": list(range(3)), **{str(i): i for i in range(90)}},
    ],
)
def test_odd_evidence_never_breaks_the_page(tmp_path: Path, odd: dict[str, Any]) -> None:
    path = write_run(tmp_path, n_steps=30, parts="recipe plan") / "plan.json"
    plan = json.loads(path.read_text())
    plan["decisions"][0]["evidence"] = odd
    put(path, plan)
    text, page = page_of(tmp_path)
    assert "optimizer.lr" in page.text
    assert "img" not in {name for name, _ in page.tags}
    section = re.search(r'<section id="decisions".*?</section>', text, flags=re.S)
    assert section is not None
    assert "nan" not in section[0].lower()


def test_nothing_to_draw_is_nothing() -> None:
    assert drawing({}) is None
    assert drawing(evidence.points("x", "y", [])) is None
    assert drawing(evidence.together()) is None
    assert drawing(evidence.bars("s", {})) is None


def test_places_on_an_axis() -> None:
    plain = Axis([0.0, 10.0], False, 0.0, 100.0)
    assert plain.at(5.0) == 50.0
    assert plain.ticks() == [0, 2, 4, 6, 8, 10]
    logarithmic = Axis([1.0, 100.0], True, 0.0, 100.0)
    assert logarithmic.at(10.0) == 50.0
    assert logarithmic.ticks() == [1, 10, 100]
    assert not logarithmic.holds(0.0)
    for values in ([3.0], [], [0.0, 0.0], [2.0, 2.1], [1e-9, 2e-9], [-5.0, 1e6]):
        for is_log in (False, True):
            axis = Axis(values, is_log, 0.0, 100.0)
            assert 1 <= len(axis.ticks()) <= 12
            assert all(0 <= axis.at(tick) <= 100 for tick in axis.ticks())


def test_evidence_is_json_without_nan() -> None:
    made = evidence.together(
        evidence.points("x", "y", [(1, math.inf)], curve=[(1, 2, math.nan, 3)], log="xy"),
        evidence.lines("x", "y", {"a": [(1, math.nan)]}),
        evidence.bars("s", {"a": math.inf, "b": (1.0, 0.1)}),
    )
    json.dumps(made, allow_nan=False)
    assert made["parts"][0]["points"] == [[1.0, None]]
    assert made["parts"][0]["log_x"] is made["parts"][0]["log_y"] is True
    assert made["parts"][2]["bars"] == [["a", None], ["b", 1.0, 0.1]]


def test_an_interval_of_no_width_is_not_drawn(tmp_path: Path) -> None:
    evidence_of = gather(RunFolder(write_run(tmp_path, n_steps=30)))
    drawn = {row.name: strip(row) is not None for row in evidence_of.predicted}
    assert drawn == {"train_s": True, "peak_bytes": True, "n_steps": False, "step_s": False, "validation_loss": True}
