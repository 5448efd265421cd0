"""Files of the data folder: `data_folder` resolves and confines references, `new_files` writes files atomically."""
