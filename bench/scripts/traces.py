"""Measures what traces cost: hosts without and with them, by CPU time per request.

    python3 bench/scripts/traces.py HOSTLER [--seconds N] [--rounds N]

HOSTLER is a release build, which finds the library of ONNX Runtime as `hostler serve` does. Needs the Debian package
wrk.

In each round, the targets take turns, forwards and backwards: a host without traces twice (A/A), one that traces no
request, one that traces a hundredth, and one that traces all, over 50 kept connections. Nothing listens where the
collector should be, so that its queue is full. The table has the median CPU time per request in microseconds, and the
median difference to the first host within a round.
"""

import pathlib
import tempfile

from measure import Started, Target, added_cpu, free_port, options, prepare


def main():
    arguments = options(__doc__, seconds=2, rounds=15)
    with tempfile.TemporaryDirectory() as name, Started() as started:
        folder = pathlib.Path(name)
        prepare(folder)
        targets = []
        for kind, sample in (("none", None), ("none, another host (A/A)", None), ("sample 0", 0.0), ("sample 0.01", 0.01), ("sample 1", 1.0)):
            traces = f'[server.traces]\nendpoint = "http://127.0.0.1:{free_port()}"\nsample = {sample}\n'
            manifest = folder / f"{len(targets)}.toml"
            manifest.write_text(
                f'[server]\naccess_log = false\n{"" if sample is None else traces}[models.plus]\npath = "plus.onnx"\n'
            )
            port, pid = started.host(arguments.hostler, manifest)
            targets.append(Target(kind, f"http://127.0.0.1:{port}/predict", [pid]))
        added_cpu(targets, folder, arguments, kept=(True,))


if __name__ == "__main__":
    main()
