"""The files of datasets, sources and models.

`base` defines the interface, `local` implements it for a folder that all hosts share, `opening` picks one by the
settings. `references` says how SQL names files, and `new_files` writes local files atomically.
"""
