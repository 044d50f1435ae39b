"""The page that shows a run: report.html, one offline file made from the run folder alone.

    report(RunFolder.open("runs/code-lm-3fa9c1d2"))  ->  runs/code-lm-3fa9c1d2/report.html

It works at any moment: of a run that is still training, or that was stopped, it shows what there is. Everything
on the page is evidence kept by an earlier stage; nothing is measured or computed anew but sums and shares.
"""

from __future__ import annotations

import base64
import hashlib
import string
from importlib.resources import files
from pathlib import Path

from danlu.base.runfolder import RunFolder, write_text
from danlu.stages.report_curves import curves
from danlu.stages.report_evidence import gather
from danlu.stages.report_html import data_block, join
from danlu.stages.report_page import body, title


def report(run: RunFolder) -> Path:
    """Write report.html from what the run folder holds now, and return its path."""
    evidence = gather(run)
    source = files("danlu.stages")
    style, script = (source.joinpath(f"report.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))
    drawn = curves(evidence.training) if evidence.training else None
    # The policy forbids the network and every script but ours, whatever a file of the run may hold.
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    policy = (
        f"default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    )
    page = string.Template(source.joinpath("report.html").read_text(encoding="utf-8"))
    text = page.substitute(
        policy=policy,
        title=join(title(evidence)),
        style=style,
        body=body(evidence),
        data=data_block("curves", drawn),
        script=script,
    )
    write_text(run.report, text)
    return run.report
