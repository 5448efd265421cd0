"""How answers get out: `reading` takes them from SQL as `lines` of JSON, `export` writes files, `kept_columns` adds to
them columns of the source."""
