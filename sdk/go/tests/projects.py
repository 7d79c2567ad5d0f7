"""Creates a project of each role, builds it, and runs its tests and its cases; then strains a plugin.

    python3 sdk/go/tests/projects.py --hostler target/release/hostler [--go GO] [--calls 10000]

Without --go, the steps of plugin.toml bring Go from PyPI, as for an author. With --go, they are
skipped. `--component` names another command than `hostler component`; MODULE, WORLD and OUT are
appended.
"""

import argparse
import contextlib
import http.client
import http.server
import json
import os
import random
import shutil
import subprocess
import tempfile
import threading
import time
import tomllib
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[3]
SDK = REPOSITORY / "sdk"
ROLES = ("transformer", "model", "executor")

# Answers with an error, and the instance continues.
ERRORS = {
    "panic": "transformer.preprocess panicked: on purpose (in main.Stress.Preprocess, app.go:",
    "index": "runtime error: index out of range [303] with length 0",
    "nilmap": "assignment to entry in nil map",
    "nilptr": "nil pointer dereference",
    "div": "integer divide by zero",
    "panicerr": "panicked: wrapped: inner",
    "plain": "plain error",
    "wrapped": "row 3: rows[3]: too wide",
    "twice": 'returned the tensor "x" twice',
    "nil": "returned a list in which tensor 0 is nil",
    "closed": "this tensor must not be used: it was closed",
    "badutf8": "bad \ufffd text",
    "kind": "expected FP32, got INT64; use hostler.Elements[int64]",
}


def project(role, folder):
    """Writes the files that `hostler new go ROLE` writes."""
    for source in ("common", f"common-{role}", "go/common", f"go/{role}"):
        shutil.copytree(SDK / "templates" / source, folder, dirs_exist_ok=True)
    (folder / "gitignore").rename(folder / ".gitignore")
    names = {"{{name}}": folder.name, "{{crate}}": folder.name.replace("-", "_"), "{{role}}": role, "{{language}}": "go"}
    for path in folder.rglob("*"):
        if path.is_file() and path.suffix != ".onnx":
            text = path.read_text()
            for name, value in names.items():
                text = text.replace(name, value)
            path.write_text(text)
    shutil.copytree(SDK / "go", folder / "sdk", ignore=shutil.ignore_patterns("tests"))
    shutil.copytree(REPOSITORY / "wit", folder / "sdk" / "wit")


def build(folder, options):
    """Runs the steps of plugin.toml, as `hostler build` does."""
    settings = tomllib.loads((folder / "plugin.toml").read_text())
    if options.go:
        (folder / ".venv/bin").mkdir(parents=True)
        (folder / ".venv/bin/go").symlink_to(Path(options.go).resolve())
    for step in settings["build"]:
        if "creates" in step and (folder / step["creates"]).exists():
            continue
        command = step["run"]
        if command[:2] == ["{hostler}", "component"]:
            _, _, module, _, world, _, out = command
            command = [options.hostler, *command[1:]]
            if options.component:
                command = [*options.component.split(), str(folder / module), world, str(folder / out)]
        run(command, folder)
    shutil.copy(folder / settings["output"], folder / settings["component"])


def run(command, folder):
    started = time.monotonic()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    print(f"  {time.monotonic() - started:5.1f} s  {' '.join(command)[-100:]}", flush=True)
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    return done.stdout


def check(role, folder, options):
    print(f"{role}:", flush=True)
    project(role, folder)
    build(folder, options)
    print(f"  {(folder / f'{folder.name}.wasm').stat().st_size >> 10} KB")
    run([".venv/bin/go", "vet", "."], folder)
    run([".venv/bin/go", "test", "."], folder)
    print(run([options.hostler, "test"], folder), end="")
    print(" ", run([options.hostler, "predict", "--manifest", "hostler.toml", "request.json"], folder).strip())


def program(role, folder, source, world, options):
    """Builds a program of this folder. It is part of the module of the SDK."""
    project(role, folder)
    (folder / "app.go").unlink()
    (folder / "app_test.go").unlink()
    shutil.copytree(SDK / "go/tests" / source, folder / "sdk/program")
    plugin = folder / "plugin.toml"
    text = plugin.read_text().replace('"build/core.wasm", "."]', '"build/core.wasm", "hostler/program"]')
    plugin.write_text(text.replace(f"{role}-outbound-plugin", world))
    build(folder, options)


@contextlib.contextmanager
def served(folder, options):
    """Serves a project. Yields the process, a connection to the host, and one to its admin listener."""
    port = random.randint(20000, 30000)
    with (folder / "log").open("w") as log:
        host = subprocess.Popen(
            [options.hostler, "serve", "--http", f"127.0.0.1:{port}", "--admin", f"127.0.0.1:{port + 1}", "hostler.toml"],
            cwd=folder, stdout=log, stderr=log,
        )
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port)
        for _ in range(1200):
            try:
                if send(connection, "GET", "/v2/health/ready")[0] == 200:
                    break
            except OSError:
                connection.close()
            time.sleep(0.1)
        yield host, connection, http.client.HTTPConnection("127.0.0.1", port + 1)
    except BaseException:
        print((folder / "log").read_text()[-4000:])
        raise
    finally:
        host.terminate()
        host.wait()


# Every kind of payload, there and back.
PAYLOADS = [
    {"name": "json", "data": {"a": 1}, "expect": 9},
    {"name": "bytes", "body": {"content_type": "text/x-a", "text": "äb"},
     "expect_body": {"content_type": "text/x-a", "text": "length 4"}},
    {"name": "tensors", "inputs": [{"name": "numbers", "datatype": "FP32", "shape": [1], "data": [3]}],
     "expect_outputs": [{"name": "results", "datatype": "FP32", "shape": [1], "data": [4]}]},
    {"name": "none", "body": {"content_type": "text/none", "text": ""},
     "expect_error": {"kind": "failed", "message": "transformer.postprocess returned no payload"}},
]


def payloads(folder, options):
    """Runs a transformer with every kind of payload."""
    print("payloads:", flush=True)
    program("transformer", folder, "contract/transformer", "transformer-outbound-plugin", options)
    (folder / "cases.json").write_text(json.dumps(PAYLOADS))
    print(run([options.hostler, "test"], folder), end="")


def send(connection, method, path, body=None):
    connection.request(method, path, json.dumps(body) if body else None)
    response = connection.getresponse()
    return response.status, response.read().decode()


def strain(folder, options):
    """Calls one instance of the stress plugin over and over. Its memory must not grow."""
    print("stress:", flush=True)
    program("transformer", folder, "stress", "transformer-outbound-plugin", options)
    with served(folder, options) as (host, connection, _):
        calls(host, connection, options.calls)


class Echo(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        self.send_response(201)
        self.send_header("x-sum", self.headers["x-one"] + self.headers["x-two"])
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def series(line):
    """Returns the name and the labels of a metric, in an order of their own."""
    name, labels = line.partition("}")[0].split("{")
    return name, tuple(sorted(labels.split(",")))


def contract(folder, options):
    """Runs an executor that uses all functions of the host, and a model with an optional input."""
    print("contract:", flush=True)
    program("executor", folder, "contract/executor", "executor-outbound-plugin", options)
    optional = folder.with_name("optional")
    program("model", optional, "contract/optional", "optional-model-outbound-plugin", options)
    server = http.server.HTTPServer(("127.0.0.1", 0), Echo)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    (folder / "words.txt").write_text("one two\n")
    manifest = folder / "hostler.toml"
    manifest.write_text(manifest.read_text().replace('attempts = "2"', f'''greeting = "grüß"
server = "{address}"

[plugins.contract.assets]
words = "words.txt"

[plugins.contract.http]
allow_hosts = ["{address}"]

[plugins.optional]
path = "../optional/optional.wasm"
''').replace("[policy]", '''[models.other]
path = "model.onnx"

[models.scale]
plugin = "optional"

[policy]'''))
    with served(folder, options) as (_, connection, admin):
        parameters = {"flag": True, "text": "größer", "whole": -7, "number": 0.5}
        for _ in range(3):
            body = {"model": "plus", "data": {"x": [41]}, "parameters": parameters, "timeout_ms": 5000}
            status, text = send(connection, "POST", "/predict", body)
            assert status == 200 and json.loads(text)["result"] == {"y": [42.0]}, text
        body = {"model": "plus", "items": [{"data": {"x": [1]}}, {"data": {"x": [-1]}}, {"data": {"x": [2]}}]}
        _, text = send(connection, "POST", "/predict/batch", body)
        batch = json.loads(text)
        assert batch["results"] == [{"y": [2.0]}, None, {"y": [3.0]}] and batch["errors"][0]["field"] == "x", text
        for data, expected in (({"x": [[1, 2]]}, [[2.0, 4.0]]), ({"x": [[1, 2]], "factor": 3}, [[3.0, 6.0]])):
            _, text = send(connection, "POST", "/predict", {"model": "scale", "data": data})
            assert json.loads(text)["result"] == {"y": expected}, text
        time.sleep(0.5)
        wanted = {
            'hostler_plugin_value{plugin="contract",name="faults"}': 0,
            'hostler_plugin_events_total{plugin="contract",name="finished"}': 3,
            'hostler_plugin_events_total{plugin="contract",name="batches"}': 1,
            'hostler_plugin_counter_rows_total{plugin="contract",kind="a",country="é"}': 3,
            'hostler_plugin_gauge_temperature{plugin="contract"}': 19.5,
            'hostler_plugin_histogram_seconds_count{plugin="contract",kind="a"}': 3,
        }
        _, text = send(admin, "GET", "/metrics")
        found = {series(line): line for line in text.splitlines() if 'plugin="contract"' in line}
        for name, value in wanted.items():
            assert float(found[series(name)].rsplit(" ", 1)[1]) == value, found[series(name)]
        print("  every function of the contract behaves")


def calls(host, connection, count):
    random.seed(1)
    modes = ["", *ERRORS, "deep", "hsleep"]
    early = None
    for index in range(count):
        mode = modes[index % len(modes)] if index % 2 else ""
        pad = "p" * random.choice([0, 10, 1000, 100_000, 400_000 if index % 50 == 0 else 10])
        data = {"value": index % 1000, "mode": mode, "rows": 300, "pad": pad}
        status, text = send(connection, "POST", "/predict", {"model": "plus", "data": data})
        answer = json.loads(text)
        if mode in ERRORS:
            assert ERRORS[mode] in answer["error"]["message"], answer
            continue
        assert status == 200 and answer["result"]["answer"] == index % 1000 + 1, answer
        last = {**answer["result"], "rss": resident(host.pid)}
        if early is None and index > count // 5:
            early = last
    shown = {key: (early[key], last[key]) for key in ("calls", "sys", "arena", "gcs", "rss")}
    print(f"  after a fifth of the calls, and at the end: {shown}")
    assert last["calls"] >= count - len(modes), "the instance was replaced"
    assert last["sys"] <= early["sys"] + (2 << 20) and last["arena"] <= 2 * early["arena"], "the memory grew"
    assert last["rss"] <= early["rss"] * 1.3 + (16 << 20), "the memory of the host grew"


def resident(pid):
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--hostler", required=True)
    parser.add_argument("--go")
    parser.add_argument("--component")
    parser.add_argument("--calls", type=int, default=10_000)
    parser.add_argument("--only", choices=(*ROLES, "contract", "stress"))
    options = parser.parse_args()
    options.hostler = str(Path(options.hostler).resolve())
    with tempfile.TemporaryDirectory() as temporary:
        for role in ROLES:
            if options.only in (None, role):
                check(role, Path(temporary) / f"my-{role}", options)
        if options.only in (None, "contract"):
            contract(Path(temporary) / "contract", options)
            payloads(Path(temporary) / "payloads", options)
        if options.only in (None, "stress"):
            strain(Path(temporary) / "stress", options)


main()
