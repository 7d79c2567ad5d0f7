"""Compares TLS of a host with nginx as a TLS proxy in front of the same host.

    python3 bench/scripts/tls.py HOSTLER [--seconds N] [--rounds N]

HOSTLER is a release build. The library of ONNX Runtime is found as by `hostler serve`. Needs the Debian
packages nginx-light, wrk and openssl.

Three targets take turns in each round: the host without TLS, the host with TLS, and nginx with TLS in
front of the host without. Each is asked over kept connections, and with a handshake for each request. The
table has medians: requests/s, and CPU time per request of all processes of the target in microseconds.
"""

import argparse
import json
import os
import pathlib
import re
import signal
import socket
import statistics
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
REQUEST = json.dumps({"model": "plus", "data": [1, 2, 3, 4]})
TICKS = os.sysconf("SC_CLK_TCK")


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


class Target:
    def __init__(self, name, url, pids):
        self.name, self.url, self.pids = name, url, pids

    def measure(self, folder, seconds, connections, is_kept):
        headers = ["-H", "content-type: application/json"]
        if not is_kept:
            headers += ["-H", "Connection: close"]
        before, started = cpu(self.pids), time.monotonic()
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}", "-s", str(folder / "post.lua"), *headers, self.url]
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        spent, took = cpu(self.pids) - before, time.monotonic() - started
        requests = int(re.search(r"(\d+) requests in", output)[1])
        if bad := re.search(r"Non-2xx.*|Socket errors.*", output):
            print(f"{self.name}: {bad[0]}")
        return requests / took, spent / max(requests, 1) * 1e6


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("hostler")
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
             "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1",
             "-keyout", folder / "key.pem", "-out", folder / "cert.pem"],
            check=True, capture_output=True,
        )
        (folder / "plus.onnx").write_bytes((ROOT / "tests/models/plus1.onnx").read_bytes())
        (folder / "post.lua").write_text(f"wrk.method = 'POST'\nwrk.body = '{REQUEST}'\n")
        tls = '[server.tls.http]\ncertificate = "cert.pem"\nkey = "key.pem"\n[server.tls.admin]\nenabled = false\n[server.tls.grpc]\nenabled = false\n'
        started, ports = [], {}
        try:
            for kind, more in (("plain", ""), ("tls", tls)):
                manifest = folder / f"{kind}.toml"
                manifest.write_text(f'[server]\naccess_log = false\n{more}[models.plus]\npath = "plus.onnx"\n')
                command = [arguments.hostler, "serve", manifest, "--http", "127.0.0.1:0", "--admin", "127.0.0.1:0"]
                host = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
                started.append(host)
                ports[kind] = (re.search(r"http=127.0.0.1:(\d+)", host.stdout.readline())[1], host.pid)
            port = free_port()
            (folder / "nginx.conf").write_text(f"""
daemon off; worker_processes 2; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 4096; }}
http {{
  access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  keepalive_requests 100000000;
  upstream host {{ server 127.0.0.1:{ports["plain"][0]}; keepalive 256; keepalive_requests 100000000; }}
  server {{
    listen 127.0.0.1:{port} ssl; ssl_protocols TLSv1.2 TLSv1.3;
    ssl_certificate {folder}/cert.pem; ssl_certificate_key {folder}/key.pem;
    location / {{ proxy_pass http://host; proxy_http_version 1.1; proxy_set_header Connection ""; }}
  }}
}}
""")
            nginx = subprocess.Popen(["/usr/sbin/nginx", "-c", folder / "nginx.conf"], stderr=subprocess.DEVNULL)
            started.append(nginx)
            while socket.socket().connect_ex(("127.0.0.1", port)):
                time.sleep(0.05)
            plain, secure = ports["plain"], ports["tls"]
            targets = [
                Target("host, no TLS", f"http://127.0.0.1:{plain[0]}/predict", [plain[1]]),
                Target("host, TLS", f"https://127.0.0.1:{secure[0]}/predict", [secure[1]]),
                Target("nginx, TLS", f"https://127.0.0.1:{port}/predict", [plain[1], *processes(nginx.pid)]),
            ]
            results = {}
            for is_kept in (True, False):
                for round_ in range(arguments.rounds):
                    order = targets if round_ % 2 == 0 else targets[::-1]
                    for target in order:
                        measured = target.measure(folder, arguments.seconds, 50, is_kept)
                        results.setdefault((is_kept, target.name), []).append(measured)
            print("| connections | target | requests/s | CPU us/request | CPU of nginx / this, each round |")
            print("|---|---|---:|---:|---|")
            for (is_kept, name), measured in results.items():
                beside = results[is_kept, "nginx, TLS"]
                ratios = [other[1] / own[1] for own, other in zip(measured, beside)]
                print(
                    f"| {'kept' if is_kept else 'one a request'} | {name} "
                    f"| {statistics.median(one[0] for one in measured):,.0f} "
                    f"| {statistics.median(one[1] for one in measured):.1f} "
                    f"| {statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f}) |"
                )
        finally:
            for process in started:
                process.send_signal(signal.SIGTERM)
            for process in started:
                process.wait(20)


if __name__ == "__main__":
    main()
