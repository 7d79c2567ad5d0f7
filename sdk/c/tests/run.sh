#!/bin/sh
# Tests of the SDK, with checks for memory errors and undefined behaviour.
set -eu
cd "$(dirname "$0")"
# If this fails, run generate.sh.
(cd .. && sha256sum --check --quiet bindings/contract.sha256)
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
"${CC:-cc}" -std=c11 -g -Wall -Wextra -fsanitize=address,undefined -fno-sanitize-recover=all -I .. \
    tests.c ../testing/model.c -lm -o "$out/tests"
"$out/tests"
