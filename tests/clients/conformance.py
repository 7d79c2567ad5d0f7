"""Checks a running host against its OpenAPI document, with requests that schemathesis generates.

    pip install --target /tmp/st schemathesis==4.32.5
    PYTHONPATH=/tmp/st python3 tests/clients/conformance.py http://127.0.0.1:8000 --tag plain --tag jobs
    PYTHONPATH=/tmp/st python3 tests/clients/conformance.py http://127.0.0.1:8002 --tag admin

The examples of the document name the model `plus1`, `tests/models/plus1.onnx`, the pipeline `chain`
and the plugin `echo`: the host should serve the model, and may serve the others. The admin run
reloads, rolls back and purges, so start a host for this check alone. `/admin/jobs/reset` is never
called.

Checked are status codes, content types, headers and bodies of all answers, that requests with faults
are refused, and that other methods are 405. A run takes at most about `--seconds`. The exit code is 0 if
everything conforms, else 1, after the failing requests were printed. The same `--seed` generates the
same requests, as far as the time suffices for them.
"""

import argparse
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

DOCUMENT = pathlib.Path(__file__).parents[2] / "host/server/openapi.json"
SHOWN_CHARS_MAX = 600
CONFIG = """
[generation]
# The host under test has no access rules, so it does not look at keys.
with-security-parameters = false

[checks]
# Which `data` is valid depends on the model, and a document cannot say that.
positive_data_acceptance.enabled = false

[checks.not_a_server_error]
# 501, 503 and 504 are answers about the request; 500 is a fault of the host.
expected-statuses = ["2xx", "4xx", 501, 503, 504]

[checks.negative_data_rejection]
expected-statuses = ["4xx", 501, 503]

[[operations]]
# Every text is a value of a parameter of the model, also `null`.
include-path-regex = "/predict/(async/)?[{]model[}]"
checks.negative_data_rejection.enabled = false

[[operations]]
# A wrong item of a batch is an entry in `errors`, with status 200.
include-path = "/predict/batch"
checks.negative_data_rejection.enabled = false
"""


def arguments():
    parser = argparse.ArgumentParser(description="Checks a running host against its OpenAPI document.")
    parser.add_argument("url", help="address of a listener, such as http://127.0.0.1:8000")
    parser.add_argument("--tag", action="append", required=True, help="operations with this tag; may be repeated")
    parser.add_argument("--without", action="append", default=[], metavar="PATH", help="leave a path out")
    parser.add_argument("--document", type=pathlib.Path, default=DOCUMENT)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--examples", type=int, default=50, help="most generated requests of each operation")
    parser.add_argument("--phases", default="examples,coverage,fuzzing", help="of schemathesis; `stateful` follows the links of jobs")
    parser.add_argument("--header", action="append", default=[], metavar="NAME:VALUE", help="sent with every request")
    return parser.parse_args()


def close(schema):
    """Refuses keys that the document does not list, so that a new one is added to both. Clients must
    accept them, so the document itself does not."""
    if isinstance(schema, dict):
        if "properties" in schema:
            schema.setdefault("additionalProperties", False)
        for value in schema.values():
            close(value)
    elif isinstance(schema, list):
        for value in schema:
            close(value)


def prepared(args):
    """Returns the document with what this check needs changed."""
    document = json.loads(args.document.read_text())
    close(document["components"]["schemas"])
    for path in ["/admin/jobs/reset", *args.without]:
        document["paths"].pop(path)
    # Most generated values are so large that the host would wait as long as it ever does.
    for operations in document["paths"].values():
        for operation in (one for one in operations.values() if isinstance(one, dict)):
            if "parameters" in operation:
                operation["parameters"] = [one for one in operation["parameters"] if not is_wait(one)]
    return document


def is_wait(parameter):
    return parameter.get("name") == "wait_ms" or parameter.get("$ref") == "#/components/parameters/WaitMs"


def main():
    args = arguments()
    document = prepared(args)
    with tempfile.TemporaryDirectory() as folder:
        schema, config = pathlib.Path(folder, "openapi.json"), pathlib.Path(folder, "schemathesis.toml")
        schema.write_text(json.dumps(document))
        config.write_text(CONFIG)
        command = [sys.executable, "-m", "schemathesis.cli", "--config-file", config, "run", schema, "--url", args.url]
        command += ["--phases", args.phases, "--max-time", str(args.seconds), "--seed", str(args.seed)]
        command += ["--max-examples", str(args.examples), "--request-timeout", "30", "--continue-on-failure", "--no-color", "--warnings", "off"]
        command += ["--generation-database", "none"]
        for option, values in (("--include-tag", args.tag), ("--header", args.header)):
            command += [part for value in values for part in (option, value)]
        output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        run = subprocess.run(command, cwd=folder, env=os.environ, **output)
    for line in run.stdout.splitlines():
        print(line if len(line) <= SHOWN_CHARS_MAX else f"{line[:SHOWN_CHARS_MAX]}… ({len(line)} characters)")
    # A run that ends early must not count as one that found nothing.
    numbers = [re.search(rf"{name}: +(\d+)", run.stdout) for name in ("Selected", "Tested")]
    if None in numbers or numbers[0][1] != numbers[1][1]:
        print("not every operation was tested: raise --seconds")
        return 1
    return 0 if run.returncode == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
