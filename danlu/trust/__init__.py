"""What can be asked of a run besides its scores: is anything wrong with it? Judgement on numbers; no torch."""
