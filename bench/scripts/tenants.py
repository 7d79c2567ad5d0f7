"""Measures what a flood of one tenant does to another one, with and without fairness.

    python3 bench/scripts/tenants.py HOSTLER [--seconds N] [--rounds N]

HOSTLER is a release build, which finds the library of ONNX Runtime as `hostler serve` does. The host has one
worker, and each request computes for about 5 ms on it. Tenants are named by a header, as a trusted proxy does.

Shares: 8 clients of one tenant and 800 clients of the other send one request after another, and wait for 200 ms
after a refusal. The table has the part of all answers that each tenant got, for both assignments of the weights
1 and 3, beside the part that its weight stands for.

Latency: one tenant sends 10 requests per second, alone, and then beside a flood of 1,000 requests per second.
The table has its median and its 99th percentile in ms, and those that it may have: its own alone, plus one
service time, plus 1 ms.

"Without fairness" is the same host when no request names a tenant.
"""

import asyncio
import json
import pathlib
import statistics
import tempfile
import time

from measure import ROOT, Started, options

WANTED_MS = 5.0
RATE = 10
FLOOD = 100


class Client:
    """A kept connection."""

    def __init__(self, port, tenant, rounds):
        self.port = port
        body = json.dumps({"model": "loop", "data": [rounds]})
        header = f"x-tenant: {tenant}\r\n" if tenant else ""
        self.request = (
            f"POST /predict HTTP/1.1\r\nhost: localhost\r\n{header}content-type: application/json\r\n"
            f"content-length: {len(body)}\r\n\r\n{body}"
        ).encode()
        self.streams = None

    async def ask(self):
        """Sends one request, and returns its status."""
        if self.streams is None:
            self.streams = await asyncio.open_connection("127.0.0.1", self.port)
        reader, writer = self.streams
        writer.write(self.request)
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ", 1)[1].split(b"\r\n", 1)[0])
        await reader.readexactly(length)
        return int(head[9:12])

    def close(self):
        if self.streams:
            self.streams[1].close()


async def closed_loop(clients, until, served):
    async def one(client):
        while time.monotonic() < until:
            if await client.ask() == 200:
                served.append(time.monotonic())
            else:
                await asyncio.sleep(0.2)

    await asyncio.gather(*(one(client) for client in clients))


async def shares(port, rounds, seconds, tenants):
    """Returns the part of the answers that the tenant with few clients got."""
    few, many = ([Client(port, tenant, rounds) for _ in range(count)] for tenant, count in zip(tenants, (8, 800)))
    until, served = time.monotonic() + seconds + 1, ([], [])
    begin = time.monotonic() + 1
    await asyncio.gather(closed_loop(few, until, served[0]), closed_loop(many, until, served[1]))
    for client in few + many:
        client.close()
    counts = [sum(at >= begin for at in times) for times in served]
    return counts[0] / sum(counts)


async def open_loop(port, tenant, rounds, rate, until, took):
    """Sends requests at a rate, whether or not earlier ones are answered."""
    free, tasks, at = [], set(), time.monotonic()

    async def one(due):
        client = free.pop() if free else Client(port, tenant, rounds)
        status = await client.ask()
        took.append((status, (time.monotonic() - due) * 1000))
        free.append(client)

    while at < until:
        at += 1 / rate
        await asyncio.sleep(max(0, at - time.monotonic()))
        task = asyncio.create_task(one(time.monotonic()))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    await asyncio.gather(*tasks)
    for client in free:
        client.close()


async def latencies(port, rounds, seconds, tenants):
    quiet, flood = tenants
    until, mine, theirs = time.monotonic() + seconds, [], []
    loads = [open_loop(port, quiet, rounds, RATE, until, mine)]
    if flood is not None:
        loads.append(open_loop(port, flood, rounds, RATE * FLOOD, until, theirs))
    await asyncio.gather(*loads)
    return [ms for status, ms in mine if status == 200], sum(status != 200 for status, _ in mine), len(theirs)


async def calibrate(port):
    """Returns the rounds for which a request takes about as long as wanted, and that time."""
    rounds = 1000
    for _ in range(6):
        client, times = Client(port, "", rounds), []
        for _ in range(20):
            began = time.monotonic()
            assert await client.ask() == 200
            times.append((time.monotonic() - began) * 1000)
        client.close()
        took = statistics.median(times)
        rounds = max(1, round(rounds * WANTED_MS * 1.05 / took))
    return rounds, took


def quantile(values, share):
    values = sorted(values)
    return values[min(len(values) - 1, int(len(values) * share))]


def spread(values):
    return f"{statistics.median(values):.3f} ({min(values):.3f}-{max(values):.3f})"


def main():
    arguments = options(__doc__, seconds=10, rounds=5)
    with tempfile.TemporaryDirectory() as name, Started() as started:
        folder = pathlib.Path(name)
        (folder / "loop.onnx").write_bytes((ROOT / "tests/models/loop.onnx").read_bytes())
        manifest = folder / "hostler.toml"
        manifest.write_text(
            '[server]\naccess_log = false\ntenant_header = "x-tenant"\ntrusted_proxies = ["127.0.0.1"]\n'
            '[executors.onnx]\nworkers = 1\nintra_threads = 1\nqueue = 64\n[models.loop]\npath = "loop.onnx"\n'
            "[tenants.three]\nweight = 3\n[tenants.one]\nweight = 1\n"
        )
        port = started.host(arguments.hostler, manifest)[0]
        rounds, service = asyncio.run(calibrate(port))
        print(f"service time: {service:.2f} ms\n")
        seconds = arguments.seconds

        print("| 8 clients of | 800 clients of | part of the 8 clients | by weight |\n|---|---|---|---|")
        for few, many, expected in (("one", "three", "0.250"), ("three", "one", "0.750"), ("", "", "-")):
            parts = [asyncio.run(shares(port, rounds, seconds, (few, many))) for _ in range(arguments.rounds)]
            names = (f"{few} (weight)", f"{many} (weight)") if few else ("no tenant", "no tenant")
            print(f"| {names[0]} | {names[1]} | {spread(parts)} | {expected} |")

        print("\n| 10 requests/s of | beside a flood of | median ms | p99 ms | may be | refused |\n|---|---|---|---|---|---|")
        for quiet, flood in (("one", "three"), ("three", "one"), ("", "")):
            alone, beside, refused, offered = [], [], 0, 0
            for _ in range(arguments.rounds):
                alone += asyncio.run(latencies(port, rounds, seconds, (quiet, None)))[0]
                mine, missed, theirs = asyncio.run(latencies(port, rounds, seconds, (quiet, flood)))
                beside, refused, offered = beside + mine, refused + missed, offered + theirs
            name = quiet or "no tenant"
            print(f"| {name} | - | {statistics.median(alone):.2f} | {quantile(alone, 0.99):.2f} | | 0 |")
            limit = quantile(alone, 0.99) + service + 1
            if beside:
                figures = f"{statistics.median(beside):.2f} | {quantile(beside, 0.99):.2f}"
            else:
                figures = "- | -"
            per_s = offered / arguments.rounds / seconds
            print(f"| {name} | {flood or 'no tenant'}, {per_s:.0f} requests/s | {figures} | {limit:.2f} | {refused} |")


if __name__ == "__main__":
    main()
