#!/bin/sh
# Without a key there is nobody to ask but the emulator, which takes any key. `setup` has checked that it runs.
set -eu
if [ -n "${LABELMILL_EMULATOR_URL:-}" ] && [ -z "${MISTRAL_API_KEY:-}" ]; then
    export MISTRAL_API_KEY=emulator LABELMILL_MISTRAL_URL="$LABELMILL_EMULATOR_URL" LABELMILL_ALLOW_HTTP=true
fi
exec "$@"
