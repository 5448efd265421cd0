"""Reports: one self-contained HTML page of any job.

`gather.py` asks the module of the job's kind (`evaluation`, `training`, `dataset`, `batch`) for `parts`, which are
plain data; `drawing.py` makes figures of them, `page.py` the HTML. Only `drawing.py` knows Matplotlib.
"""
