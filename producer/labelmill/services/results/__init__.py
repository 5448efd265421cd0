"""Results: `reading` reads answers from SQL, chunk by chunk, with the `scores` that are chosen. A chunk is shown as
`lines` of JSON or, for `arrow_batches`, as `arrow_columns`. `export` writes files of lines (JSONL, `csv_files`) and of
batches (`parquet_files`), whose columns `tables` names; `frames` makes tables of other libraries; `kept_columns` adds
columns of the source.
"""
