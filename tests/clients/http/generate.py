"""The generate extension, which the client has no calls for: flat objects in and out, and
server-sent events.
"""

import json
import urllib.error
import urllib.request

from expect import ADDRESS, equal


def post(path, body):
    request = urllib.request.Request(f"http://{ADDRESS}/v2/models/{path}", json.dumps(body).encode())
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, answer.headers["Content-Type"], answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.headers["Content-Type"], error.read().decode()


status, kind, text = post("texts/generate", {"INPUT0": "grüße", "id": "7"})
equal("one text", (status, kind, json.loads(text)["OUTPUT0"], json.loads(text)["id"]),
      (200, "application/json", "grüße", "7"))
rows = {"INPUT0": list(range(16)), "INPUT1": [2] * 16}
answer = json.loads(post("simple/generate", rows)[2])
equal("rows", [answer["OUTPUT0"][:3], answer["OUTPUT1"][:3]], [[2, 3, 4], [-2, -1, 0]])

status, kind, text = post("texts/generate_stream", {"INPUT0": "x", "parameters": {"temperature": 0.5}})
equal("events", (status, kind.split(";")[0], text.count("data: "), text[-2:]), (200, "text/event-stream", 1, "\n\n"))
equal("event", json.loads(text.removeprefix("data: "))["OUTPUT0"], "x")

for path, body, wanted in (
    ("texts/generate", {}, 400),
    ("texts/generate", {"INPUT0": 1}, 400),
    ("texts/generate_stream", {"INPUT0": 1}, 400),
    ("texts/generate_stream", {"INPUT0": "x", "more": {"nested": 1}}, 400),
    ("text/generate_stream", {"INPUT0": "x"}, 404),
):
    status, _, text = post(path, body)
    equal(f"{path} {body}", (status, list(json.loads(text))), (wanted, ["error"]))
