"""Reports: one self-contained HTML page of any job.

`gather.py` asks the module of the job's kind (`evaluation`, `training`, `dataset`, `batch`) for `parts`, which are
plain data; `drawing.py` makes figures of them, `page.py` the HTML. Only `drawing.py` knows Matplotlib. Drift:
`batch_answers.py` counts what a batch was answered, `baseline.py` finds what the model answered before, `drift.py`
compares them by the tests of `two_samples.py`.
"""
