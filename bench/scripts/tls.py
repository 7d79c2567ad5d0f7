"""Compares TLS of a host with nginx as a TLS proxy in front of the same host.

    python3 bench/scripts/tls.py HOSTLER [--seconds N] [--rounds N]

HOSTLER is a release build, which finds the library of ONNX Runtime as `hostler serve` does. Needs the Debian
packages nginx-light, wrk and openssl.

Three targets take turns in each round: the host without TLS, the host with TLS, and nginx with TLS in
front of the host without. Each is asked over kept connections, and with a handshake for each request. The
table has medians: requests/s, and CPU time per request of all processes of the target in microseconds.
"""

import pathlib
import socket
import statistics
import subprocess
import tempfile
import time

from measure import Started, Target, free_port, options, prepare, processes

TLS = """[server.tls.http]
certificate = "cert.pem"
key = "key.pem"
[server.tls.admin]
enabled = false
[server.tls.grpc]
enabled = false
"""

NGINX = """
daemon off; worker_processes 2; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 4096; }}
http {{
  access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  keepalive_requests 100000000;
  upstream host {{ server 127.0.0.1:{host}; keepalive 256; keepalive_requests 100000000; }}
  server {{
    listen 127.0.0.1:{port} ssl; ssl_protocols TLSv1.2 TLSv1.3;
    ssl_certificate {folder}/cert.pem; ssl_certificate_key {folder}/key.pem;
    location / {{ proxy_pass http://host; proxy_http_version 1.1; proxy_set_header Connection ""; }}
  }}
}}
"""


def main():
    arguments = options(__doc__, seconds=3, rounds=7)
    with tempfile.TemporaryDirectory() as name, Started() as started:
        folder = pathlib.Path(name)
        prepare(folder)
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
             "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1",
             "-keyout", folder / "key.pem", "-out", folder / "cert.pem"],
            check=True, capture_output=True,
        )
        hosts = {}
        for kind, more in (("plain", ""), ("tls", TLS)):
            manifest = folder / f"{kind}.toml"
            manifest.write_text(f'[server]\naccess_log = false\n{more}[models.plus]\npath = "plus.onnx"\n')
            hosts[kind] = started.host(arguments.hostler, manifest)
        port = free_port()
        (folder / "nginx.conf").write_text(NGINX.format(folder=folder, host=hosts["plain"][0], port=port))
        nginx = started.start(["/usr/sbin/nginx", "-c", folder / "nginx.conf"], stderr=subprocess.DEVNULL)
        while socket.socket().connect_ex(("127.0.0.1", port)):
            time.sleep(0.05)
        plain, secure = hosts["plain"], hosts["tls"]
        targets = [
            Target("host, no TLS", f"http://127.0.0.1:{plain[0]}/predict", [plain[1]]),
            Target("host, TLS", f"https://127.0.0.1:{secure[0]}/predict", [secure[1]]),
            Target("nginx, TLS", f"https://127.0.0.1:{port}/predict", [plain[1], *processes(nginx.pid)]),
        ]
        results = {}
        for is_kept in (True, False):
            headers = () if is_kept else ("Connection: close",)
            for round_ in range(arguments.rounds):
                for target in targets if round_ % 2 == 0 else targets[::-1]:
                    measured = target.measure(folder, arguments.seconds, 50, headers)
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


if __name__ == "__main__":
    main()
