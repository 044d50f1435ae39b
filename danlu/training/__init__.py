"""The parts of the training loop that are not the loop: guards, signals, averages, state. The loop is stages/train.py.

guards.py    non-finite losses, loss spikes, when to stop
signals.py   per-layer gradients, update/weight ratios, dead units, and the trouble they name
state.py     what a checkpoint holds, and putting it back
"""
