"""Making a dataset: rows of any source → selected, split, written in the factory's format.

`dataset.prepare_dataset` is the whole; it calls, in this order, `source` (where rows come from), `parse` (a row → its
text and labels, or the reason why not), `staging` (texts on disk, label numbers in memory), `selection` (duplicates,
floors and caps), `split` and `output`. `parse`, `selection` and `split` are pure. `likeness` then tells what is
repeated or leaks between splits; `same_text` says which texts are the same.
"""
