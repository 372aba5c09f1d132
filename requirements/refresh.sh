#!/usr/bin/env bash
# Resolve pyproject.toml anew into the hash-pinned files beside this script, for every platform and Python 3.11 and later.
#
# Each file begins from the pins of the one before it, so the wheel's own dependencies are the same wherever they stand.
# No address of an index and no path of this machine enters a file. Needs uv; pass --upgrade to move the pins.
set -euo pipefail
cd "$(dirname "$0")/.."

resolve() { # resolve FILE [uv options…]
    local file=$1
    shift
    uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --quiet \
        --only-binary :all: --no-emit-index-url --no-emit-find-links --no-emit-build-options --no-header --annotation-style line \
        --output-file "requirements/$file" "$@"
}

resolve base.txt "$@"
resolve runtime.txt --constraint requirements/base.txt --all-extras --group build "$@"
resolve dev.txt --constraint requirements/runtime.txt --all-extras --group dev "$@"
