#!/usr/bin/env bash
# Makes a certificate for this machine and the keys of the rules, in the folder `secrets` or in the folder $1.
# $HOSTLER is the program, by default the one in target/debug.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
hostler="${HOSTLER:-../../target/debug/hostler}"
folder="${1:-secrets}"

umask 077
mkdir -p "$folder"
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=localhost -addext basicConstraints=critical,CA:FALSE \
  -addext subjectAltName=DNS:localhost,IP:127.0.0.1 -keyout "$folder/server.key" -out "$folder/server.pem" 2>/dev/null
rm -f "$folder/keys.toml"
for name in shop prometheus ops; do
  "$hostler" key new "$name" --file "$folder/keys.toml" > "$folder/$name.key"
done
echo "made $folder"
