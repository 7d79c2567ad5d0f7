"""Creates a project of each role, builds it, and runs its tests and its cases; then strains a plugin.

    python3 sdk/go/tests/projects.py --hostler target/release/hostler [--go GO] [--calls 10000]

Without --go, the steps of plugin.toml bring Go from PyPI, as for an author. With --go, they are
skipped. `--component` names another command than `hostler component`; MODULE, WORLD and OUT are
appended.
"""

import argparse
import http.client
import json
import os
import random
import shutil
import subprocess
import tempfile
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


def strain(folder, options):
    """Calls one instance of the stress plugin over and over. Its memory must not grow."""
    print("stress:", flush=True)
    project("transformer", folder)
    (folder / "app.go").unlink()
    (folder / "app_test.go").unlink()
    # It is in the module of the SDK, because it looks at the arena.
    shutil.copytree(SDK / "go/tests/stress", folder / "sdk/stress")
    plugin = folder / "plugin.toml"
    plugin.write_text(plugin.read_text().replace('"build/core.wasm", "."]', '"build/core.wasm", "hostler/stress"]'))
    build(folder, options)
    port = random.randint(20000, 30000)
    log = (folder / "log").open("w")
    host = subprocess.Popen(
        [options.hostler, "serve", "--http", f"127.0.0.1:{port}", "--admin", f"127.0.0.1:{port + 1}", "hostler.toml"],
        cwd=folder, stdout=log, stderr=log,
    )
    try:
        calls(host, port, options.calls)
    except BaseException:
        print((folder / "log").read_text()[-2000:])
        raise
    finally:
        host.terminate()
        host.wait()


def calls(host, port, count):
    connection = http.client.HTTPConnection("127.0.0.1", port)
    for _ in range(1200):
        try:
            connection.request("GET", "/v2/health/ready")
            response = connection.getresponse()
            response.read()
            if response.status == 200:
                break
        except OSError:
            connection.close()
        time.sleep(0.1)
    random.seed(1)
    modes = ["", *ERRORS, "deep", "hsleep"]
    early = None
    for index in range(count):
        mode = modes[index % len(modes)] if index % 2 else ""
        pad = "p" * random.choice([0, 10, 1000, 100_000, 400_000 if index % 50 == 0 else 10])
        data = {"value": index % 1000, "mode": mode, "rows": 300, "pad": pad}
        connection.request("POST", "/predict", json.dumps({"model": "plus", "data": data}))
        response = connection.getresponse()
        answer = json.loads(response.read())
        if mode in ERRORS:
            assert ERRORS[mode] in answer["error"]["message"], answer
            continue
        assert response.status == 200 and answer["result"]["answer"] == index % 1000 + 1, answer
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
    parser.add_argument("--only", choices=(*ROLES, "stress"))
    options = parser.parse_args()
    options.hostler = str(Path(options.hostler).resolve())
    with tempfile.TemporaryDirectory() as temporary:
        for role in ROLES:
            if options.only in (None, role):
                check(role, Path(temporary) / f"my-{role}", options)
        if options.only in (None, "stress"):
            strain(Path(temporary) / "stress", options)


main()
