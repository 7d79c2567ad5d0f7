#!/bin/sh
# Generates bindings/ROLE/bindings.{h,c} from the contract. Run it after a change of wit/. It needs
# the program wit-bindgen, of exactly this version:
#   cargo install wit-bindgen-cli --version 0.63.0 --locked --no-default-features --features c
set -eu
cd "$(dirname "$0")"
version=0.63.0
generator=${WIT_BINDGEN:-wit-bindgen}
found=$("$generator" --version)
case $found in *" $version"*) ;; *) echo "wit-bindgen $version is needed, this is $found" >&2; exit 1 ;; esac
for role in model transformer executor; do
    # The program `hostler component` adds the type of the world, so no object file is needed.
    "$generator" c wit --world "$role-outbound-plugin" --rename-world bindings --no-object-file \
        --out-dir "bindings/$role"
done
# `make -C tests` compares it: a change of the contract must not be forgotten here.
sha256sum wit/hostler.wit wit/deps/*/*.wit > bindings/contract.sha256
