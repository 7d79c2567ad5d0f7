"""Sends each bad request to Hostler and to a real Triton with the same models, side by side.

    side_by_side.py HOSTLER TRITON [--write] [--only TEXT]

HOSTLER and TRITON are the programs that start them. Prints a table in Markdown. Ends with an error
if Hostler answers a client's mistake with a fault of its own, hangs, closes the connection without
an answer or dies; if a difference has no explanation; or if the table differs from the one in
docs/measured/bad-requests.md (`--write` updates it).
"""

import argparse
import pathlib
import sys
import tempfile

from bad_requests import grpc_cases, http_cases, servers, wire
from bad_requests.why import why

DOCUMENT = servers.ROOT / "docs/measured/bad-requests.md"
# The markers around a table in the document.
BEGIN, END = "<!-- {} -->", "<!-- end -->"
HEAD = ["| request | Hostler | says | Triton | why |", "|---|---|---|---|---|"]
DIES, HARMED = "dies", "harmed"
# Server statuses that are not a fault: not offered, busy or unavailable, late.
MEANT = {501, 503, 504}
# Statuses that need a message. Readiness is exempt: the protocol defines no message for it.
SAID = {400, 404, 405, 408, 413, 414, 431, 501, 503, 504}
FAULTS = {"UNKNOWN", "INTERNAL", "DATA_LOSS", wire.HANGS, wire.CLOSED, DIES, HARMED}


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("hostler")
    arguments.add_argument("triton")
    arguments.add_argument("--write", action="store_true")
    arguments.add_argument("--only", default="")
    arguments.add_argument("--protocol", default="", help="HTTP or gRPC alone")
    arguments = arguments.parse_args()
    tables = {"HTTP": [], "gRPC": []}
    faults = []
    for control in ("explicit", "none"):
        with tempfile.TemporaryDirectory() as folder:
            run(pathlib.Path(folder), control, arguments, tables, faults)
    for protocol, rows in tables.items():
        print(f"\n{protocol}\n\n" + "\n".join(HEAD + rows))
    if arguments.write:
        write(tables)
    elif not arguments.only and not arguments.protocol:
        faults += differences(tables)
    if faults:
        sys.exit(f"\n{len(faults)} faults:\n" + "\n".join(faults))


def run(folder, control, arguments, tables, faults):
    """Runs all cases that need this mode of model control."""
    for name in ("hostler", "triton"):
        (folder / name).mkdir()
    triton = servers.Triton(folder / "triton", arguments.triton, control)
    hostler = servers.Hostler(folder / "hostler", arguments.hostler, control, triton)
    try:
        triton.start()
        hostler.start()
        for protocol, cases in (("HTTP", http_cases.CASES), ("gRPC", grpc_cases.CASES)):
            for case in cases:
                if arguments.protocol in ("", protocol) and case.control == (control == "explicit") and arguments.only in case.name:
                    there = ask(triton, protocol, case)
                    # Hostler lost its remote if Triton died.
                    hostler.wait()
                    here = ask(hostler, protocol, case)
                    tables[protocol].append(row(case, here, there))
                    print(f"{protocol}: {case.name}: {here.status} {there.status}", file=sys.stderr, flush=True)
                    faults += [f"{protocol}: {case.name}: {fault}" for fault in judge(case, here, there)]
    finally:
        hostler.stop()
        triton.stop()


def ask(server, protocol, case):
    """Returns the answer, or what happened to the server."""
    if protocol == "HTTP":
        answer = wire.http(server.http, case.method, case.path, case.headers, case.body, case.raw)
    else:
        answer = case.ask(server.grpc)
    if server.is_well():
        return answer
    # A process that is about to end may still have accepted the connection.
    fate = DIES if gone(server) else HARMED
    server.restart()
    return wire.Answer(fate, answer.body)


def gone(server):
    try:
        server.child.wait(wire.SECONDS_MAX)
    except Exception:
        return False
    return True


def judge(case, here, there):
    """Yields what is wrong with Hostler's answer."""
    if here.status in FAULTS or isinstance(here.status, int) and here.status >= 500 and here.status not in MEANT:
        yield f"Hostler: {here.status}: {here.text}"
    if here.status in SAID and not here.body and not case_path(case).endswith("/ready"):
        yield f"Hostler: {here.status} without a word"
    answered = getattr(case, "answered", None)
    if answered is not None and not here.status.startswith(f"{answered} answers"):
        yield f"Hostler: expected {answered} answers, got {here.status}"
    if why(case, here.status, there.status) is None:
        yield f"no word why Hostler has {here.status} ({here.text}) and Triton {there.status} ({there.text})"


def case_path(case):
    path = getattr(case, "path", "")
    return path if isinstance(path, str) else ""


def row(case, here, there):
    reason = why(case, here.status, there.status) or ""
    cells = [case.name, here.status, cell(here.text), there.status, reason]
    return "| " + " | ".join(str(one).replace("|", "\\|") for one in cells) + " |"


def cell(text):
    text = "".join(one if one.isprintable() else "\\u%04x" % ord(one) for one in text.replace("`", "'"))
    return f"`{text}`" if text else ""


def differences(tables):
    """Yields the rows that the document does not have. The message may differ, the status may not.
    """
    document = DOCUMENT.read_text()
    for protocol, rows in tables.items():
        written = document.partition(BEGIN.format(protocol))[2].partition(END)[0].strip().splitlines()[len(HEAD):]
        written = {facts(line) for line in written}
        for line in rows:
            if facts(line) not in written:
                yield f"{DOCUMENT.name} does not have: {line}"


def facts(line):
    """The case and Hostler's status. The message may name a port, and Triton's answer may vary."""
    return tuple(line.split(" | ")[:2])


def write(tables):
    document = DOCUMENT.read_text()
    for protocol, rows in tables.items():
        before, begin, rest = document.partition(BEGIN.format(protocol))
        after = rest.partition(END)[2]
        document = before + begin + "\n" + "\n".join(HEAD + rows) + "\n" + END + after
    DOCUMENT.write_text(document)


main()
