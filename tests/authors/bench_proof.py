"""Checks what `hostler bench` says against a server, and against a slower build.

    python3 tests/authors/bench_proof.py HOSTLER [--comparisons 10] [--requests 20000]

- A slowdown of 20 % is planted in a plugin of about 100 us. `hostler bench --against` must find it in
  every comparison, and must raise no alarm when a file is compared with itself.
- The CPU time that a transformer adds to a request of a server, over one connection, must agree with
  its preprocess and postprocess in `hostler bench` within 25 % or 3 us, whichever is more.

Needs Rust with the target wasm32-wasip2. The exit code is 1 if one of them does not hold.
"""

import argparse
import http.client
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROUNDS = 6

# `black_box` keeps the compiler from leaving the loop out.
WORK = """    fn predict(_: &Request, inputs: Vec<Tensor>) -> Result<Vec<Tensor>, Error> {
        let mut sum = 0_u64;
        for number in 0..ROUNDS_OF_WORK {
            sum = std::hint::black_box(sum.rotate_left(5) ^ number);
        }
        std::hint::black_box(sum);
"""


def run(*command, cwd):
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def must(*command, cwd):
    code, text = run(*command, cwd=cwd)
    if code != 0:
        sys.exit(f"{' '.join(map(str, command))} failed:\n{text}")
    return text


def planted(hostler, folder, count):
    """Returns how often a planted slowdown was found, and how often there was a false alarm."""
    must(hostler, "new", "rust", "model", "work", cwd=folder)
    project = folder / "work"
    source = project / "src/lib.rs"
    pristine = source.read_text()
    head = "    fn predict(_: &Request, inputs: Vec<Tensor>) -> Result<Vec<Tensor>, Error> {\n"
    assert head in pristine
    for name, rounds in (("fast", 100_000), ("slow", 120_000)):
        source.write_text(pristine.replace(head, WORK.replace("ROUNDS_OF_WORK", f"{rounds}_u64")))
        must(hostler, "build", cwd=project)
        (project / "work.wasm").rename(project / f"{name}.wasm")
    manifest = (project / "hostler.toml").read_text()
    found = alarms = 0
    for _ in range(count):
        for new, old in (("slow", "fast"), ("fast", "fast")):
            (project / "hostler.toml").write_text(manifest.replace("work.wasm", f"{new}.wasm"))
            code, text = run(hostler, "bench", "request.json", "--seconds", "0.1", "--against", f"{old}.wasm",
                             cwd=project)
            verdict = text.strip().splitlines()[-1]
            if code not in (0, 1) or "times the time" not in verdict:
                sys.exit(text)
            print(f"{new} against {old}: exit code {code}, {verdict}")
            if new == "slow":
                found += code == 1
            else:
                alarms += code == 1
    return found, alarms


class Server:
    def __init__(self, hostler, folder):
        command = [hostler, "serve", "hostler.toml", "--http", "127.0.0.1:0", "--admin", "127.0.0.1:0"]
        environment = {**os.environ, "HOSTLER_LOG": "warn"}
        self.process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True, env=environment,
                                        stderr=subprocess.DEVNULL)
        line = self.process.stdout.readline()
        self.port = int(re.search(r"http=\S+:(\d+)", line).group(1))

    def cpu_s(self):
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def cost_us(self, body, requests):
        """Returns the CPU time of the server for one request."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port)
        before = self.cpu_s()
        for _ in range(requests):
            connection.request("POST", "/predict", body)
            answer = connection.getresponse()
            content = answer.read()
            assert answer.status == 200, content
        connection.close()
        return (self.cpu_s() - before) / requests * 1e6

    def stop(self):
        self.process.terminate()
        self.process.wait()


def agreement(hostler, folder, requests):
    """Returns what a transformer adds in `hostler bench`, and in a server, in microseconds."""
    must(hostler, "new", "rust", "transformer", "number", cwd=folder)
    project = folder / "number"
    must(hostler, "build", cwd=project)
    text = must(hostler, "bench", "request.json", "--seconds", "3", cwd=project)
    print(text.strip())
    columns = text.splitlines()[1].split()
    row = next(line.split() for line in text.splitlines() if line.startswith("reused"))
    value = dict(zip(columns, row))
    told = float(value["preprocess"]) + float(value["postprocess"])
    with (project / "hostler.toml").open("a") as manifest:
        manifest.write('\n[models.alone]\npath = "model.onnx"\n\n[server]\naccess_log = false\n')
    server = Server(hostler, project)
    try:
        with_plugin = (project / "request.json").read_text()
        alone = json.dumps({"model": "alone", "data": {"x": [41]}})
        added = []
        for _ in range(ROUNDS):
            one, two = server.cost_us(with_plugin, requests), server.cost_us(alone, requests)
            added.append(one - two)
            print(f"CPU us per request: {one:.1f} with the transformer, {two:.1f} without")
            time.sleep(0.1)
    finally:
        server.stop()
    return told, statistics.median(added)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("hostler", type=Path)
    parser.add_argument("--comparisons", type=int, default=10)
    parser.add_argument("--requests", type=int, default=20_000)
    arguments = parser.parse_args()
    hostler, count = arguments.hostler.resolve(), arguments.comparisons
    with tempfile.TemporaryDirectory() as folder:
        found, alarms = planted(hostler, Path(folder), count)
        told, added = agreement(hostler, Path(folder), arguments.requests)
    within = max(3.0, 0.25 * added)
    agrees = abs(told - added) <= within
    print(f"a slowdown of 20 % was found {found} times of {count}; {alarms} alarms in {count} comparisons of a file with itself")
    print(f"the transformer takes {told:.1f} us in hostler bench, and adds {added:.1f} us to a request of the server: "
          f"{'within' if agrees else 'NOT within'} {within:.1f} us")
    return 0 if found == count and alarms == 0 and agrees else 1


if __name__ == "__main__":
    sys.exit(main())
