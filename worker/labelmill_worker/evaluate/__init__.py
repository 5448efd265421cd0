"""Evaluation: how good a model is on the rows of a split.

`evaluation.py` takes an evaluation on, one step at a time: its texts become batches of the bulk engine, and when
those have ended `measure.py` reads answers and truth block by block into the tallies (`single_label.py`,
`multi_label.py`), which know every metric. `scores`, `probabilities`, `temperature`, `resampling` (intervals), `f1`
are pure. What each figure means is in docs/evaluation.md.
"""
