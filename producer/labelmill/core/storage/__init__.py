"""The files of datasets, sources and models, wherever they lie: in a folder that all hosts share, or in S3.

`base` defines the interface, `local` and `s3` implement it, `opening` picks one by the settings. `references` says how
SQL names files. `remote` reads and writes files behind URLs, with errors of `remote_faults`; `s3_listing` lists what
lies in a bucket; `cache` bounds the local copies of what lies elsewhere,
and `new_files` writes local files atomically.
"""
