"""What answers "auto": named laws (priors), what the machine is (hardware), and the ledger of what was decided."""
