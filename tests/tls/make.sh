#!/bin/sh
# Makes the certificates of the tests: an authority, a server that it has signed for "localhost" alone, and an authority
# that has signed nothing. The authorities' keys are thrown away. Good for a hundred years.
set -eu
cd "$(dirname "$0")"
keys=$(mktemp -d)
trap 'rm -r "$keys"' EXIT
key="-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
for name in ca other; do
    # shellcheck disable=SC2086
    openssl req -x509 $key -days 36500 -subj "/CN=Hostler tests: $name" -keyout "$keys/$name.key" -out "$name.pem" \
        -addext "basicConstraints=critical,CA:TRUE" -addext "keyUsage=critical,keyCertSign"
done
# shellcheck disable=SC2086
openssl req $key -subj "/CN=localhost" -keyout server.key -out "$keys/server.csr"
printf 'subjectAltName=DNS:localhost\nbasicConstraints=critical,CA:FALSE\n' > "$keys/extensions"
openssl x509 -req -in "$keys/server.csr" -CA ca.pem -CAkey "$keys/ca.key" -CAcreateserial -CAserial "$keys/serial" \
    -days 36500 -extfile "$keys/extensions" -out server.pem
