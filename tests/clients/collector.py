"""A collector of OTLP over gRPC and HTTP. Prints its ports, and then a line of JSON for each span.

Ends when its input ends.
"""

import concurrent.futures
import gzip
import http.server
import json
import sys
import threading

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

LOCK = threading.Lock()


def value(any_value):
    return getattr(any_value, any_value.WhichOneof("value"))


def attributes(pairs):
    return {pair.key: value(pair.value) for pair in pairs}


def show(request, protocol, headers):
    for resource in request.resource_spans:
        for scope in resource.scope_spans:
            for span in scope.spans:
                line = {
                    "protocol": protocol,
                    "headers": headers,
                    "resource": attributes(resource.resource.attributes),
                    "scope": scope.scope.name,
                    "trace": span.trace_id.hex(),
                    "id": span.span_id.hex(),
                    "parent": span.parent_span_id.hex(),
                    "state": span.trace_state,
                    "name": span.name,
                    "kind": span.kind,
                    "start": span.start_time_unix_nano,
                    "end": span.end_time_unix_nano,
                    "attributes": attributes(span.attributes),
                    "error": span.status.message if span.status.code == 2 else None,
                }
                with LOCK:
                    print(json.dumps(line), flush=True)


class Service(trace_service_pb2_grpc.TraceServiceServicer):
    def Export(self, request, context):
        show(request, "grpc", dict(context.invocation_metadata()))
        return trace_service_pb2.ExportTraceServiceResponse()


class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        is_right = self.path == "/v1/traces" and self.headers["content-type"] == "application/x-protobuf"
        if is_right:
            request = trace_service_pb2.ExportTraceServiceRequest.FromString(body)
            show(request, "http", {name.lower(): value for name, value in self.headers.items()})
        answer = trace_service_pb2.ExportTraceServiceResponse().SerializeToString()
        self.send_response(200 if is_right else 400)
        self.send_header("content-type", "application/x-protobuf")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


def main():
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(2))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(Service(), server)
    grpc_port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    web = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=web.serve_forever, daemon=True).start()
    print(json.dumps({"grpc": grpc_port, "http": web.server_port}), flush=True)
    sys.stdin.read()
    server.stop(0)


main()
