"""The ground every room stands on: contracts, settings, units, errors, the run folder. No torch at import."""
