#!/bin/sh
# Runs once before everything else, as root with the right to change owners and no other: whether the settings fit
# together, and the data folder for the user that the other services run as.
set -eu

refuse() {
    echo "labelmill: $1" >&2
    exit 2
}

if getent hosts emulator >/dev/null; then
    [ -z "${MISTRAL_API_KEY_IS_SET:-}" ] ||
        refuse "MISTRAL_API_KEY is set and the emulator runs: unset the key, or leave out --profile emulator"
elif [ -z "${MISTRAL_API_KEY_IS_SET:-}" ]; then
    refuse "there is nobody to ask: set MISTRAL_API_KEY in .env, or start with --profile emulator"
fi

owner="$LABELMILL_UID:$LABELMILL_GID"
[ "$LABELMILL_UID" != 0 ] || refuse "LABELMILL_UID is 0: name a user that is not root"
# A folder that Docker made, or that another user filled, is handed over once and whole.
if [ "$(stat -c %u:%g /data)" != "$owner" ]; then
    chown -R "$owner" /data
    chmod 0700 /data
fi
