"""Makes letters.onnx, alphabet.txt and reference.json: `python make.py` (needs numpy and onnx;
takes a minute or two).

A language model of single characters: a gated recurrent unit, trained on sentences of the small
grammar below. One run of the ONNX model is one step: it takes a character and the state, and
returns a score for each next character and the new state. reference.json contains what a plain
numpy loop generates with the same weights; the example's tests compare with it. The seed is fixed;
the committed files are the ones that the example and its tests use.
"""

import json
from pathlib import Path

import numpy as np
from onnx import TensorProto as T
from onnx import helper as h
from onnx import numpy_helper as nh
from onnx import save

HERE = Path(__file__).parent
RANDOM = np.random.default_rng(11)
ALPHABET = "\n .,abcdefghijklmnopqrstuvwxyz"
STATE, STEPS, LENGTH, ROWS = 96, 1500, 64, 32

WHO = ["fox", "crow", "heron", "hare", "old badger", "young wolf", "miller", "ferryman", "goose"]
WHERE = ["by the river", "under the oak", "in the barn", "on the hill", "near the mill", "behind the hedge"]
WHAT = ["a red apple", "a lantern", "a silver coin", "an empty nest", "a loaf of bread", "a broken oar"]
DID = ["found", "hid", "lost", "saw", "carried away", "dreamed of"]
WHEN = ["in the morning", "before the rain", "when the moon was up", "at the end of winter"]
THEN = ["and told nobody", "and laughed", "and went home", "but nobody came", "and slept until noon"]


def sentence():
    one = lambda words: words[RANDOM.integers(len(words))]
    form = RANDOM.integers(3)
    if form == 0:
        return f"the {one(WHO)} {one(DID)} {one(WHAT)} {one(WHERE)}."
    if form == 1:
        return f"{one(WHEN)}, the {one(WHO)} {one(DID)} {one(WHAT)}."
    return f"the {one(WHO)} sat {one(WHERE)} {one(THEN)}."


def story():
    return " ".join(sentence() for _ in range(RANDOM.integers(2, 5))) + "\n"


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def step(weights, token, state):
    """Runs one step for many rows. Returns scores, state, and the values that the gradient needs.
    """
    u, w, b, o, c = weights
    x, y = u[token] + b, state @ w
    reset, update = sigmoid(x[:, :STATE] + y[:, :STATE]), sigmoid(x[:, STATE:-STATE] + y[:, STATE:-STATE])
    candidate = np.tanh(x[:, -STATE:] + reset * y[:, -STATE:])
    after = update * state + (1 - update) * candidate
    return after @ o + c, after, (token, state, y, reset, update, candidate, after)


def gradients(weights, text, state):
    """Returns the gradients of the cross entropy of each character of `text` [LENGTH + 1, ROWS],
    given the ones before it."""
    u, w, b, o, c = weights
    grads, kept, loss = [np.zeros_like(p) for p in weights], [], 0.0
    rows = np.arange(ROWS)
    for token, expected in zip(text, text[1:]):
        scores, state, seen = step(weights, token, state)
        p = np.exp(scores - scores.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        loss -= np.log(p[rows, expected]).mean() / LENGTH
        p[rows, expected] -= 1
        kept.append((seen, p / (ROWS * LENGTH)))
    carried = np.zeros((ROWS, STATE))
    for (token, before, y, reset, update, candidate, after), error in reversed(kept):
        grads[3] += after.T @ error
        grads[4] += error.sum(0)
        d = error @ o.T + carried
        inner = d * (1 - update) * (1 - candidate**2)
        through = np.hstack(
            [inner * y[:, -STATE:] * reset * (1 - reset), d * (before - candidate) * update * (1 - update), inner]
        )
        recurrent = np.hstack([through[:, :-STATE], inner * reset])
        np.add.at(grads[0], token, through)
        grads[1] += before.T @ recurrent
        grads[2] += through.sum(0)
        carried = d * update + recurrent @ w.T
    return grads, loss, state


def trained():
    text = "".join(story() for _ in range(2500))
    tokens = np.array([ALPHABET.index(letter) for letter in text])
    tokens = tokens[: len(tokens) // ROWS * ROWS].reshape(ROWS, -1).T
    sizes = [(len(ALPHABET), 3 * STATE), (STATE, 3 * STATE), (3 * STATE,), (STATE, len(ALPHABET)), (len(ALPHABET),)]
    weights = [RANDOM.standard_normal(size) * (0.1 if len(size) > 1 else 0.0) for size in sizes]
    means, squares = [np.zeros_like(p) for p in weights], [np.zeros_like(p) for p in weights]
    at, state = 0, np.zeros((ROWS, STATE))
    for n in range(1, STEPS + 1):
        if at + LENGTH + 1 > len(tokens):
            at, state = 0, np.zeros((ROWS, STATE))
        grads, loss, state = gradients(weights, tokens[at : at + LENGTH + 1], state)
        at += LENGTH
        norm = np.sqrt(sum((g**2).sum() for g in grads))
        for i, g in enumerate(grads):
            g *= min(1.0, 1.0 / norm)
            means[i] = 0.9 * means[i] + 0.1 * g
            squares[i] = 0.99 * squares[i] + 0.01 * g**2
            mean, square = means[i] / (1 - 0.9**n), squares[i] / (1 - 0.99**n)
            weights[i] -= 0.004 * (1 - 0.95 * n / STEPS) * mean / (np.sqrt(square) + 1e-8)
        if n % 100 == 0:
            print(f"step {n}: {loss:.3f}", flush=True)
    return [p.astype(np.float32) for p in weights]


def write(weights):
    node, value = h.make_node, h.make_tensor_value_info
    nodes = [
        node("Gather", ["u", "token"], ["row"]),
        node("Add", ["row", "b"], ["x"]),
        node("MatMul", ["state", "w"], ["y"]),
        node("Split", ["x"], ["xr", "xu", "xc"], axis=1, num_outputs=3),
        node("Split", ["y"], ["yr", "yu", "yc"], axis=1, num_outputs=3),
        node("Add", ["xr", "yr"], ["zr"]),
        node("Sigmoid", ["zr"], ["reset"]),
        node("Add", ["xu", "yu"], ["zu"]),
        node("Sigmoid", ["zu"], ["update"]),
        node("Mul", ["reset", "yc"], ["rc"]),
        node("Add", ["xc", "rc"], ["zc"]),
        node("Tanh", ["zc"], ["candidate"]),
        node("Sub", ["state", "candidate"], ["change"]),
        node("Mul", ["update", "change"], ["kept"]),
        node("Add", ["candidate", "kept"], ["next_state"]),
        node("MatMul", ["next_state", "o"], ["raw"]),
        node("Add", ["raw", "c"], ["scores"]),
    ]
    inputs = [value("token", T.INT64, ["rows"]), value("state", T.FLOAT, ["rows", STATE])]
    outputs = [value("scores", T.FLOAT, ["rows", len(ALPHABET)]), value("next_state", T.FLOAT, ["rows", STATE])]
    graph = h.make_graph(nodes, "letters", inputs, outputs, [nh.from_array(p, n) for p, n in zip(weights, "uwboc")])
    opsets = [h.make_opsetid("", 18)]
    save(h.make_model(graph, opset_imports=opsets, ir_version=8, producer_name="hostler"), HERE / "letters.onnx")


class Chance:
    """Splitmix64, with exactly the numbers that the plugin draws."""

    def __init__(self, seed):
        self.state = seed % 2**64

    def fraction(self):
        self.state = (self.state + 0x9E3779B97F4A7C15) % 2**64
        z = self.state
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
        return ((z ^ (z >> 31)) >> 11) / 2**53


def generate(weights, prompt, max_tokens, temperature, seed, stop):
    state, chance, text = np.zeros((1, STATE), np.float32), Chance(seed), ""
    for letter in "\n" + prompt.lower():
        scores, state, _ = step(weights, np.array([ALPHABET.index(letter)]), state)
    while len(text) < max_tokens:
        token = choose(scores[0].astype(np.float64), temperature, chance)
        if token == 0:
            break
        text += ALPHABET[token]
        if stop and text.endswith(stop):
            break
        scores, state, _ = step(weights, np.array([token]), state)
    return text


def choose(scores, temperature, chance):
    if temperature == 0:
        return int(np.argmax(scores))
    shares = np.exp((scores - scores.max()) / temperature)
    left = chance.fraction() * shares.sum()
    for token, share in enumerate(shares):
        left -= share
        if left < 0:
            return token
    return len(shares) - 1


def main():
    weights = trained()
    write(weights)
    (HERE / "alphabet.txt").write_text(ALPHABET)
    asked = [
        ("the fox", 120, 0.0, 0, ""),
        ("the fox", 120, 0.7, 1, ""),
        ("The Heron", 200, 0.7, 2, "."),
        ("", 200, 1.0, 3, ""),
        ("when the moon", 40, 0.5, 4, ""),
    ]
    names = ("prompt", "max_tokens", "temperature", "seed", "stop")
    cases = [dict(zip(names, case), text=generate(weights, *case)) for case in asked]
    (HERE / "reference.json").write_text(json.dumps(cases, indent=1) + "\n")
    for case in cases:
        print(repr(case["prompt"]), case["text"], sep=" -> ")


main()
