"""What the comparisons of this folder share: hosts, load by wrk, and CPU time of processes."""

import argparse
import os
import pathlib
import re
import signal
import socket
import statistics
import subprocess
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
TICKS = os.sysconf("SC_CLK_TCK")

REQUEST = '{"model": "plus", "data": [1, 2, 3, 4]}'


def options(description, seconds, rounds):
    """The arguments of a comparison."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("hostler")
    parser.add_argument("--seconds", type=int, default=seconds)
    parser.add_argument("--rounds", type=int, default=rounds)
    return parser.parse_args()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def processes(pid):
    """A process and its children."""
    try:
        children = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return [pid]
    return [pid, *(child for one in children for child in processes(int(one)))]


def cpu(pids):
    """Seconds of user and system time."""
    total = 0
    for pid in pids:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICKS


class Started:
    """Processes that are ended together."""

    def __init__(self):
        self.all = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.all:
            process.send_signal(signal.SIGTERM)
        for process in self.all:
            process.wait(20)

    def start(self, command, **options):
        self.all.append(subprocess.Popen(command, **options))
        return self.all[-1]

    def host(self, hostler, manifest):
        """Starts a host. Returns the port of its public listener, and its process id."""
        command = [hostler, "serve", manifest, "--http", "127.0.0.1:0", "--admin", "127.0.0.1:0"]
        process = self.start(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        return int(re.search(r"http=127.0.0.1:(\d+)", process.stdout.readline())[1]), process.pid


class Target:
    def __init__(self, name, url, pids, headers=(), script="post.lua"):
        self.name, self.url, self.pids, self.script = name, url, pids, script
        self.headers = [word for header in headers for word in ("-H", header)]

    def measure(self, folder, seconds, connections, headers=()):
        """Requests per second, and CPU time per request in microseconds."""
        more = [word for header in headers for word in ("-H", header)]
        before, started = cpu(self.pids), time.monotonic()
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}", "-s", str(folder / self.script), *self.headers, *more, self.url]
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        spent, took = cpu(self.pids) - before, time.monotonic() - started
        requests = int(re.search(r"(\d+) requests in", output)[1])
        if bad := re.search(r"Non-2xx.*|Socket errors.*", output):
            print(f"{self.name}: {bad[0]}")
        return requests / took, spent / max(requests, 1) * 1e6


def prepare(folder):
    """Writes the model and the script of wrk."""
    (folder / "plus.onnx").write_bytes((ROOT / "tests/models/plus1.onnx").read_bytes())
    lua = f"wrk.method = 'POST'\nwrk.body = '{REQUEST}'\nwrk.headers['content-type'] = 'application/json'\n"
    (folder / "post.lua").write_text(lua)


def added_cpu(targets, folder, arguments, kept=(True, False)):
    """Prints what targets cost beside the first one. In each round, they take turns, forwards and backwards."""
    print("| connections | target | CPU us/request | added to the first, us (quartiles) |")
    print("|---|---|---:|---|")
    for is_kept in kept:
        headers = () if is_kept else ("Connection: close",)
        results = {one.name: [] for one in targets}
        for round_ in range(arguments.rounds):
            for one in targets if round_ % 2 == 0 else targets[::-1]:
                results[one.name].append(one.measure(folder, arguments.seconds, 50, headers)[1])
        first = results[targets[0].name]
        for one in targets:
            added = [own - base for own, base in zip(results[one.name], first)]
            low, middle, high = statistics.quantiles(added, n=4) if any(added) else (0, 0, 0)
            print(
                f"| {'kept' if is_kept else 'one a request'} | {one.name} "
                f"| {statistics.median(results[one.name]):.2f} | {middle:+.2f} ({low:+.2f} to {high:+.2f}) |"
            )
