"""`plugins/features` in Python, without concurrency: a model that looks users up in a feature
store, one after the other. A request that waits leaves its worker but keeps an instance of its own.
"""

import json

import hostler_http
import hostler_plugin as hostler


class Model(hostler.Model):
    def metadata(self):
        users = hostler.spec("users", "INT64", [-1])
        return hostler.ModelMetadata([users], [hostler.spec("features", "FP32", [-1, -1])])

    def predict(self, request, inputs):
        store = hostler.config("store")
        if store is None:
            raise hostler.failed('config lacks "store"')
        rows = [look_up(store, user) for user in hostler.elements(hostler.named(inputs, "users"))]
        width = len(rows[0]) if rows else 0
        if any(len(row) != width for row in rows):
            raise hostler.failed("the store has more features of one user than of another")
        numbers = [number for row in rows for number in row]
        return [hostler.tensor("features", "FP32", [len(rows), width], numbers)]


def look_up(store, user):
    answer = hostler_http.fetch(f"{store}/users/{user}", headers={"accept": "application/json"})
    if answer.status == 404:
        raise hostler.invalid("users", f"the store knows no user {user}")
    return json.loads(hostler_http.success(answer).body)
