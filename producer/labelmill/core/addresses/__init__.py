"""The addresses in the settings: Redis (`broker`), the database (`database`), Mistral (`mistral`).

Each is parsed once, when settings are loaded, so that an invalid one is refused before anything is written. A reader
raises ValueError with one sentence, which never repeats a part of the address that could be a password.
"""
