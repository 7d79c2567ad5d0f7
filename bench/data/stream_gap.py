"""Measures the cost of calling a streaming model through Hostler.

`stream_gap.py DIRECT_PORT HOSTLER_PORT STREAMS` calls tests/triton/repeat, one stream after the
other, alternating between the servers. A stream has ten values, 5 ms apart. Prints one line
`direct|hostler first|gap P50_US P99_US` for each measured time: `first` is the time until the first
response, `gap` the time between two responses.
"""

import queue
import sys
import time

import numpy
import tritonclient.grpc as grpcclient

VALUES, DELAY_MS = 10, 5


def stream(client, answers):
    """Returns the times until the first response and between responses, in microseconds."""
    values = grpcclient.InferInput("values", [VALUES], "INT32")
    values.set_data_from_numpy(numpy.arange(VALUES, dtype=numpy.int32))
    delays = grpcclient.InferInput("delays_ms", [VALUES], "UINT32")
    delays.set_data_from_numpy(numpy.full(VALUES, DELAY_MS, numpy.uint32))
    times = [time.perf_counter()]
    client.async_stream_infer("repeat", [values, delays])
    for expected in range(VALUES):
        at, result, error = answers.get(timeout=10)
        if error is not None:
            raise error
        if result.as_numpy("value").tolist() != [expected]:
            sys.exit(f"unexpected content of response {expected}: {result.get_response()}")
        times.append(at)
    steps = [(after - before) * 1e6 for before, after in zip(times, times[1:])]
    return steps[:1], steps[1:]


def main():
    direct, hostler, streams = sys.argv[1], sys.argv[2], int(sys.argv[3])
    asked = {}
    for name, port in [("direct", direct), ("hostler", hostler)]:
        client, answers = grpcclient.InferenceServerClient(f"127.0.0.1:{port}"), queue.Queue()
        client.start_stream(lambda result, error, answers=answers: answers.put((time.perf_counter(), result, error)))
        stream(client, answers)
        asked[name] = (client, answers, {"first": [], "gap": []})
    for _ in range(streams):
        for client, answers, times in asked.values():
            first, gaps = stream(client, answers)
            times["first"] += first
            times["gap"] += gaps
    for name, (client, _, times) in asked.items():
        client.stop_stream()
        for kind, values in times.items():
            print(name, kind, *(f"{numpy.percentile(values, share):.0f}" for share in [50, 99]))


main()
