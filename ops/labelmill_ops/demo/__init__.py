"""The whole main job on the bundled sample: `command` (the CLI) → `script` (the steps) → `stack` (a temporary one)."""
