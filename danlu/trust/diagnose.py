"""The diagnosis: records of what was seen at each step in, findings out. A pure function of the records so far.

Each check is a few lines of arithmetic on what is remembered; its threshold is scale-free (a ratio to the run's own past,
a score in standard deviations) and was set on healthy and broken runs of three tasks (benchmarks/diagnosis.md).
"""

from __future__ import annotations

from dataclasses import dataclass

from danlu.trust.checks import CHECKS
from danlu.trust.findings import Finding, Memory, Record
from danlu.trust.remember import remember


@dataclass
class Diagnosis(Memory):
    """What was remembered, and judging by it."""

    def see(self, record: Record) -> list[Finding]:
        """New findings of a step."""
        remember(self, record)
        found = [finding for check in CHECKS if (finding := check(self, record)) and finding.name not in self.told]
        self.told += [finding.name for finding in found]
        return found
