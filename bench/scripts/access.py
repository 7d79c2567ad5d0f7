"""Measures what access rules cost: hosts without and with rules, by CPU time per request.

    python3 bench/scripts/access.py HOSTLER [--seconds N] [--rounds N]

HOSTLER is a release build, which finds the library of ONNX Runtime as `hostler serve` does. Needs the Debian
packages wrk and openssl.

In each round, the targets take turns, forwards and backwards: a host without rules twice (A/A), and hosts
with rules, without and with limits of tenants, that are asked with an API key and with a JSON web token
(ES256), over 50 kept connections. The
table has the median CPU time per request in microseconds, and the median difference to the first host
within a round. The last rows have a connection for each request, so that keys are looked up and tokens are
found in the cache of the host each time. The last target sends tokens that the host has not checked before.
"""

import base64
import json
import pathlib
import subprocess
import tempfile
import time

from measure import REQUEST, Started, Target, added_cpu, options, prepare


TENANTS = (
    '[tenants.app]\ncallers = ["key:app", "user:app"]\nrequests_per_s = 1e8\nrows_per_s = 1e8\nmax_in_flight = 10000\n'
    'max_in_flight_mb = 1000\n'
)


def base64url(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


# More than the host remembers, which are 4,096: sent in turn, each is a new one.
NEW_TOKENS = 5000

NEW_TOKENS_LUA = """
local tokens, at = {}, 0
for line in io.lines("%s") do tokens[#tokens + 1] = line end
request = function()
  at = at %% #tokens + 1
  return wrk.format("POST", nil, {["content-type"] = "application/json", ["Authorization"] = "Bearer " .. tokens[at]}, [[%s]])
end
"""


def issuer(folder):
    """Makes a key pair by openssl. Returns a JWKS, and what signs a token with this id."""
    key = folder / "issuer.pem"
    subprocess.run(["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", key], check=True)
    command = ["openssl", "ec", "-in", key, "-pubout", "-outform", "DER"]
    point = subprocess.run(command, check=True, capture_output=True).stdout[-64:]
    jwk = {"kty": "EC", "crv": "P-256", "alg": "ES256", "kid": "one", "x": base64url(point[:32]), "y": base64url(point[32:])}

    def token(id):
        claims = {"sub": "app", "iss": "bench", "aud": "hostler", "exp": int(time.time()) + 36000, "jti": id}
        message = ".".join(base64url(json.dumps(part).encode()) for part in ({"alg": "ES256", "kid": "one"}, claims))
        sign = ["openssl", "dgst", "-sha256", "-sign", key]
        # DER: a sequence of two integers.
        der, numbers, at = subprocess.run(sign, input=message.encode(), check=True, capture_output=True).stdout, [], 2
        for _ in range(2):
            length = der[at + 1]
            numbers.append(der[at + 2 : at + 2 + length].lstrip(b"\0").rjust(32, b"\0"))
            at += 2 + length
        return f"{message}.{base64url(b''.join(numbers))}"

    return json.dumps({"keys": [jwk]}), token


def main():
    arguments = options(__doc__, seconds=2, rounds=15)
    with tempfile.TemporaryDirectory() as name, Started() as started:
        folder = pathlib.Path(name)
        prepare(folder)
        command = [arguments.hostler, "key", "new", "app", "--file", folder / "keys.toml"]
        key = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
        jwks, token = issuer(folder)
        signed = token("0")
        (folder / "tokens").write_text("".join(token(str(id)) + "\n" for id in range(NEW_TOKENS)))
        (folder / "new_tokens.lua").write_text(NEW_TOKENS_LUA % (folder / "tokens", REQUEST))
        (folder / "jwks.json").write_text(jwks)
        (folder / "access.toml").write_text(
            'keys = "keys.toml"\n[tokens]\njwks = "jwks.json"\nalgorithms = ["ES256"]\nissuer = "bench"\naudience = "hostler"\n'
            '[[rules]]\nwho = ["key:other"]\nverbs = ["read"]\n'
            '[[rules]]\nwho = ["key:app", "user:app"]\nverbs = ["predict"]\nmodels = ["plus"]\n'
        )
        hosts = {}
        rules = 'access_rules = "access.toml"\n'
        for kind, more, tables in (("open", "", ""), ("again", "", ""), ("rules", rules, ""), ("limits", rules, TENANTS)):
            manifest = folder / f"{kind}.toml"
            manifest.write_text(f'[server]\naccess_log = false\n{more}[models.plus]\npath = "plus.onnx"\n{tables}')
            hosts[kind] = started.host(arguments.hostler, manifest)

        def target(name, kind, secret=None, script="post.lua"):
            headers = [f"Authorization: Bearer {secret}"] if secret else []
            return Target(name, f"http://127.0.0.1:{hosts[kind][0]}/predict", [hosts[kind][1]], headers, script)

        targets = [
            target("no rules", "open"),
            target("no rules, another host (A/A)", "again"),
            target("rules, API key", "rules", key),
            target("rules, token", "rules", signed),
            target("rules and limits of tenants, API key", "limits", key),
            target("rules and limits of tenants, token", "limits", signed),
            target("rules, a new token with each request", "rules", script="new_tokens.lua"),
        ]
        added_cpu(targets, folder, arguments)


if __name__ == "__main__":
    main()
