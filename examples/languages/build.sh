#!/bin/sh
# Builds a plugin in C, C++ or Zig outside of this repository, and runs its cases:
#   examples/languages/build.sh c|cpp|zig FOLDER
# The folder must not exist. The program `hostler` must be on the path, or named by HOSTLER.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
language=$1
folder=$2
hostler=${HOSTLER:-hostler}
world=model-outbound-plugin

if [ "$language" = c ]; then
    "$hostler" new c model "$folder"
    cd "$folder"
    "$hostler" build
    make test
    "$hostler" test
    exit
fi

mkdir "$folder"
cd "$folder"
cp "$here/hostler.toml" "$here/cases.json" "$here/$language"/app.* .
python3 -m venv .venv
.venv/bin/python -m pip install --quiet --disable-pip-version-check ziglang==0.17.1
zig=".venv/bin/python -m ziglang"
"$hostler" sdk c sdk
case $language in
cpp)
    $zig cc -target wasm32-wasi -mexec-model=reactor -O2 -gline-tables-only -UNDEBUG -fno-exceptions \
        -Wl,-z,stack-size=262144 -Wall -Wextra -I sdk app.cpp sdk/model.c -lc++ -o core.wasm
    ;;
zig)
    $zig translate-c -target wasm32-wasi -lc -I sdk sdk/hostler.h > hostler.zig
    $zig build-exe -target wasm32-wasi -mexec-model=reactor -O ReleaseSmall -fstrip --stack 262144 \
        -rdynamic -lc -I sdk -cflags -std=c11 -- sdk/model.c \
        --dep hostler -Mroot=app.zig -Mhostler=hostler.zig -femit-bin=core.wasm
    ;;
*)
    echo "no recipe for $language; there are c, cpp and zig" >&2
    exit 2
    ;;
esac
"$hostler" component core.wasm --world "$world" --out double.wasm
"$hostler" test
