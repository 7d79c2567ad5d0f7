"""A toy feature store: GET /users/<id> returns three numbers after 50 ms, for ids from 0 to 999."""

import http.server
import json
import time


class Store(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        time.sleep(0.05)
        user = self.path.removeprefix("/users/")
        known = user.isdecimal() and int(user) < 1000
        row = [int(user), round((int(user) % 100) ** 2 / 100, 4), int(user) % 2] if known else None
        body = json.dumps(row).encode()
        self.send_response(200 if known else 404)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    print("the store is at http://127.0.0.1:9000")
    http.server.ThreadingHTTPServer(("127.0.0.1", 9000), Store).serve_forever()
