"""Submits jobs and collects their results, whatever happens to the host or to this program.

    python3 client.py --run monday --count 1000

Each job has an idempotency key, made of the run and its number. If this program is killed, start it
again with the same run: the host knows the keys, and returns the jobs that are there already. If the
host is away, the program waits for it.
"""

import argparse
import http.client
import json
import random
import sys
import time


class Host:
    """A connection that is opened again when it breaks."""

    def __init__(self, address: str):
        self.address = address
        self.connection: http.client.HTTPConnection | None = None

    def request(self, method: str, path: str, body: str | None = None, headers: dict | None = None):
        """Returns status and body. Tries again while the host is away or full."""
        pause = 0.05
        while True:
            try:
                if self.connection is None:
                    self.connection = http.client.HTTPConnection(self.address, timeout=70)
                self.connection.request(method, path, body, headers or {})
                reply = self.connection.getresponse()
                text = reply.read()
                if reply.status not in (429, 503):
                    return reply.status, json.loads(text)
                reason = f"{reply.status} {text.decode()}"
            except (OSError, http.client.HTTPException) as error:
                self.connection = None
                reason = repr(error)
            print(f"waiting for the host: {reason}", file=sys.stderr)
            time.sleep(pause * random.uniform(0.5, 1))
            pause = min(pause * 2, 2)


def customer(number: int) -> list[float]:
    """Makes a row of features, the same one for the same number."""
    random_row = random.Random(number)
    return [random_row.uniform(-1, 1) for _ in range(18)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--host", default="127.0.0.1:8000")
    parser.add_argument("--run", default="example", help="names the jobs that belong together")
    parser.add_argument("--count", type=int, default=1000)
    args = parser.parse_args()
    host = Host(args.host)

    jobs = []
    for number in range(args.count):
        body = json.dumps({"model": "bankchurn", "data": {"input": [customer(number)]}})
        key = f"{args.run}-{number}"
        status, job = host.request("POST", "/predict/async", body, {"Idempotency-Key": key})
        if status != 202:
            print(f"job {key} was refused with {status}: {job}", file=sys.stderr)
            return 1
        jobs.append(job["job_id"])
    print(f"submitted {len(jobs)} jobs")

    results = 0
    for job in jobs:
        while True:
            status, result = host.request("GET", f"/jobs/{job}/result?wait_ms=60000")
            if status == 200:
                results += 1
            elif status == 202:
                continue
            else:
                print(f"job {job} has no result: {status} {result}", file=sys.stderr)
            break
    print(f"collected {results} results")
    return 0 if results == len(jobs) else 1


if __name__ == "__main__":
    sys.exit(main())
