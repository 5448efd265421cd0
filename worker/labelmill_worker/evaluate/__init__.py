"""Evaluation: `metrics.py` is pure, `run.py` classifies a split through the bulk engine and compares."""
