"""Sends what no well-behaved client would: raw HTTP/1.1, and gRPC calls with arbitrary bytes."""

import json
import socket
import time
import urllib.parse
from dataclasses import dataclass

import grpc
import h2.config
import h2.connection
import h2.events
import h2.exceptions

# The time limit of every answer.
SECONDS_MAX = 5
# The status of a server that closes the connection or does not answer.
CLOSED, HANGS = "closes", "hangs"
SERVICE = "/inference.GRPCInferenceService/"


@dataclass
class Answer:
    """An answer; `status` is an HTTP status, the name of a gRPC status, or one of the above."""

    status: object
    body: bytes = b""

    @property
    def text(self):
        """The message, shortened to fit into a cell of a table."""
        text = self.body.decode(errors="replace")
        try:
            text = json.loads(text)["error"]
            text = text.get("message", text) if isinstance(text, dict) else text
        except (ValueError, KeyError, TypeError):
            pass
        text = " ".join(str(text).split())
        return text if len(text) <= 120 else text[:119] + "…"


def tensor(name, datatype, shape, data=None, **parameters):
    """An input in JSON."""
    whole = {"name": name, "datatype": datatype, "shape": shape}
    if data is not None:
        whole["data"] = data
    return whole | ({"parameters": parameters} if parameters else {})


def infer(inputs, **more):
    return json.dumps({"inputs": inputs} | more).encode()


def http(port, method, path, headers=None, body=b"", raw=None):
    """Sends one request on a new connection; `raw` replaces the whole request."""
    if raw is None:
        path = path.encode() if isinstance(path, str) else path
        head = {"Host": "localhost", "Connection": "close", "Content-Length": str(len(body))} | (headers or {})
        lines = b"".join(f"{name}: {value}\r\n".encode("latin-1") for name, value in head.items() if value is not None)
        raw = method.encode() + b" " + path + b" HTTP/1.1\r\n" + lines + b"\r\n" + body
    try:
        with socket.create_connection(("127.0.0.1", port), SECONDS_MAX) as stream:
            try:
                stream.sendall(raw)
            except (BrokenPipeError, ConnectionResetError):
                pass  # It has heard enough, and may have said so.
            return receive(stream)
    except TimeoutError:
        return Answer(HANGS)
    except OSError:
        return Answer(CLOSED)


def receive(stream):
    got = b""
    while True:
        head, end, body = got.partition(b"\r\n\r\n")
        if end:
            lines = head.decode("latin-1").split("\r\n")
            status = int(lines[0].split()[1])
            headers = dict(line.lower().split(": ", 1) for line in lines[1:] if ": " in line)
            if len(body) >= int(headers.get("content-length", 1 << 60)) or body.endswith(b"0\r\n\r\n"):
                return Answer(status, body)
        try:
            part = stream.recv(1 << 16)
        except ConnectionResetError:
            part = b""
        if not part:
            return Answer(status, body) if end else Answer(CLOSED)
        got += part


def unary(port, method, message, seconds=SECONDS_MAX, metadata=(), compression=None):
    """Makes a unary call; `message` is bytes or a message of the protocol, `method` may be a full
    path.
    """
    return call(port, lambda channel: channel.unary_unary(path(method)), as_bytes(message), seconds, metadata, compression)


def stream(port, messages, seconds=SECONDS_MAX, metadata=()):
    """Sends all messages to ModelStreamInfer; returns the messages of its answers, and how it
    ended.
    """
    said = []
    make = lambda channel: channel.stream_stream(path("ModelStreamInfer"))
    answer = call(port, make, iter([as_bytes(message) for message in messages]), seconds, metadata, None, said)
    return said, answer


def call(port, make, message, seconds, metadata, compression, said=None):
    options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    begun = time.monotonic()
    with grpc.insecure_channel(f"127.0.0.1:{port}", options) as channel:
        try:
            answer = make(channel)(message, timeout=seconds, metadata=metadata, compression=compression)
            if said is None:
                return Answer("OK", b"")
            said.extend(answer)
            return Answer("OK")
        except grpc.RpcError as error:
            text = error.details() or ""
            # The client derives a gRPC status from an HTTP status; this restores the HTTP status.
            if "http2 header with status: " in text:
                return Answer("HTTP " + text.rsplit(": ", 1)[1])
            late = error.code() is grpc.StatusCode.DEADLINE_EXCEEDED and time.monotonic() - begun >= SECONDS_MAX
            return Answer(HANGS if late else error.code().name, text.encode())


def path(method):
    return method if method.startswith("/") else SERVICE + method


def as_bytes(message):
    return message if isinstance(message, bytes) else message.SerializeToString()


def frames(port, data, headers=(), method="ModelInfer"):
    """Makes a call with frames that no gRPC library would send: `data` unchanged, with extra
    headers.
    """
    head = {
        ":method": "POST", ":scheme": "http", ":authority": "localhost", ":path": path(method),
        "content-type": "application/grpc", "te": "trailers",
    } | dict(headers)
    try:
        with socket.create_connection(("127.0.0.1", port), SECONDS_MAX) as sock:
            connection = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
            connection.initiate_connection()
            connection.send_headers(1, [(name, value) for name, value in head.items() if value is not None])
            connection.send_data(1, data, end_stream=True)
            sock.sendall(connection.data_to_send())
            return trailers(sock, connection)
    except TimeoutError:
        return Answer(HANGS)
    except OSError:
        return Answer(CLOSED)


def trailers(sock, connection):
    status, got = None, b""
    while True:
        part = sock.recv(1 << 16)
        if not part:
            return Answer(CLOSED)
        got += part
        # Frames are parsed one by one, so that an invalid one does not hide those before it.
        while len(got) >= 9 and len(got) >= (size := 9 + int.from_bytes(got[:3], "big")):
            frame, got = got[:size], got[size:]
            try:
                events = connection.receive_data(frame)
            except h2.exceptions.ProtocolError:
                return Answer("reset")
            for event in events:
                headers = dict(getattr(event, "headers", None) or {})
                if "grpc-status" in headers:
                    name = next(code.name for code in grpc.StatusCode if str(code.value[0]) == headers["grpc-status"])
                    return Answer(name, urllib.parse.unquote_to_bytes(headers.get("grpc-message", "")))
                status = headers.get(":status", status)
                if isinstance(event, h2.events.StreamReset):
                    return Answer("reset")
                if isinstance(event, h2.events.StreamEnded):
                    return Answer(f"HTTP {status}")
                if isinstance(event, h2.events.ConnectionTerminated):
                    return Answer("goaway")
        sock.sendall(connection.data_to_send())
