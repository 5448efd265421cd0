"""Results: `reading` reads answers from SQL as `lines` of JSON, with the `scores` that are chosen; `export`
writes files of them (`tables`: rows as cells; `csv_files`, `parquet_files`, `arrow_batches`); `frames` makes tables of
other libraries; `kept_columns` adds columns of the source.
"""
