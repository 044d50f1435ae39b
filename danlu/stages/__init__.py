"""VERBS, one file each, in reading order. They know nothing of one another and meet only in the run folder.

check.py      what a run would be                    evaluate.py   scores against baselines
prepare.py    raw data -> data/                      report.py     report.html
plan.py       every "auto" answered -> plan.json     generate.py   text from a trained model
train.py      the loop
"""
