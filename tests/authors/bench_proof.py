"""Checks what `hostler bench` says against a server, and against a slower build.

    python3 tests/authors/bench_proof.py HOSTLER [--comparisons 10] [--seconds 2]

- A slowdown of 20 % is planted in a plugin of about 100 us. `hostler bench --against` must find it in
  every comparison, and must raise no alarm when a file is compared with itself.
- The CPU time that a transformer adds to a request of a server under load must agree with what
  `hostler bench` says (preprocess, postprocess and release) within 25 % or 3 us, whichever is more, with
  reused and with fresh instances.

Needs Rust with the target wasm32-wasip2, and `wrk`. The exit code is 1 if one of them does not hold.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROUNDS = 8
CONNECTIONS = 100

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
        self.script = folder / "post.lua"

    def cpu_s(self):
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def cost_us(self, body, seconds):
        """Returns the CPU time of the server for one request, over many connections."""
        self.script.write_text(f'wrk.method = "POST"\nwrk.body = [[{body}]]\n')
        before = self.cpu_s()
        done = subprocess.run(["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "-s", self.script,
                               f"http://127.0.0.1:{self.port}/predict"], capture_output=True, text=True)
        requests = re.search(r"(\d+) requests in", done.stdout)
        if requests is None or "Non-2xx" in done.stdout:
            sys.exit(done.stdout + done.stderr)
        return (self.cpu_s() - before) / int(requests.group(1)) * 1e6

    def stop(self):
        self.process.terminate()
        self.process.wait()


def agreement(hostler, folder, seconds, instances):
    """Returns what a transformer takes in `hostler bench`, and adds in a server, in microseconds."""
    project = folder / "number"
    if not project.exists():
        must(hostler, "new", "rust", "transformer", "number", cwd=folder)
        must(hostler, "build", cwd=project)
        with (project / "hostler.toml").open("a") as manifest:
            manifest.write('\n[models.alone]\npath = "model.onnx"\n\n[server]\naccess_log = false\n')
    manifest = project / "hostler.toml"
    manifest.write_text(re.sub('instances = ".*"', f'instances = "{instances}"', manifest.read_text()))
    told, added = [], []
    server = Server(hostler, project)
    try:
        with_plugin = (project / "request.json").read_text().strip()
        alone = json.dumps({"model": "alone", "data": {"x": [41]}})
        for _ in range(ROUNDS):
            text = must(hostler, "bench", "request.json", "--seconds", "1", cwd=project)
            row = next(line.split() for line in text.splitlines() if line.startswith(instances))
            value = dict(zip(text.splitlines()[1].split(), row))
            told.append(sum(float(value[part]) for part in ("preprocess", "postprocess", "release")))
            one, two = server.cost_us(with_plugin, seconds), server.cost_us(alone, seconds)
            added.append(one - two)
            print(f"{instances}: {told[-1]:.1f} us in hostler bench; CPU of a request {one:.1f} us with the transformer, "
                  f"{two:.1f} us without")
    finally:
        server.stop()
    return statistics.median(told), statistics.median(added)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("hostler", type=Path)
    parser.add_argument("--comparisons", type=int, default=10)
    parser.add_argument("--seconds", type=int, default=2)
    arguments = parser.parse_args()
    hostler, count = arguments.hostler.resolve(), arguments.comparisons
    fails = False
    with tempfile.TemporaryDirectory() as folder:
        if count:
            found, alarms = planted(hostler, Path(folder), count)
            fails |= found != count or alarms != 0
            print(f"a slowdown of 20 % was found {found} times of {count}; {alarms} alarms in {count} comparisons of a "
                  "file with itself")
        for instances in ("reused", "fresh"):
            told, added = agreement(hostler, Path(folder), arguments.seconds, instances)
            within = max(3.0, 0.25 * added)
            fails |= abs(told - added) > within
            print(f"{instances}: the transformer takes {told:.1f} us in hostler bench, and adds {added:.1f} us to a "
                  f"request of the server: {'NOT ' * (abs(told - added) > within)}within {within:.1f} us")
    return int(fails)


if __name__ == "__main__":
    sys.exit(main())
