"""The bundled sample: made-up requests to a voice assistant, labelled with one of 16 intents.

`utterances.jsonl` holds `{"id", "text", "intent", "lang"}` per line, written by `generate.py` from the sentences in
`phrases.py`. It is for demos and tests: these sentences are made up, so figures on it say nothing about real speech.
"""

from pathlib import Path
from typing import Final

SAMPLE_PATH: Final = Path(__file__).with_name("utterances.jsonl")
