"""The parts of the training loop that are not the loop: guards, signals, averages, state. The loop is stages/train.py.

loop.py      a run opened for training: resumed, logged, evaluated, saved
update.py    what happens to gradients between backward and the optimizer
guards.py    non-finite losses, loss spikes, when to stop
signals.py   per-layer gradients, update/weight ratios, dead units, and the trouble they name
state.py     what a checkpoint holds, and putting it back
validation.py  a quick look at the validation split      interrupt.py  SIGINT and SIGTERM
"""
