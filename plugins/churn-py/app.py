"""The transformer of `examples/bankchurn`: turns a customer's record into the model's 18 features,
and the model's probabilities into an answer. `plugins/churn` and `plugins/churn-js` are the same
transformer in other languages. All three return the same bytes, which `tests/data/churn_cases.json`
verifies."""

import json
import math
import re

import hostler_plugin as hostler

# A customer with at least this probability counts as lost.
CHURN = 0.5
# With at least this probability, the risk is `high`.
HIGH_RISK = 0.7
# With at least this probability, the risk is `medium`; below it, `low`.
MEDIUM_RISK = 0.4

# The notes that preprocess leaves for postprocess. A plain record, the usual case, needs no note.
RECORD = b""
EXPLAIN = b"explain"
TENSORS = b"tensors"

# Fields that become one number each, in the order of the features: type, minimum, maximum.
NUMERICS = {
    "credit_score": ("a whole number", 300, 850),
    "age": ("a whole number", 18, 100),
    "tenure": ("a whole number", 0, 10),
    "balance": ("a number", 0, 300000),
    "num_of_products": ("a whole number", 1, 4),
    "has_cr_card": ("true or false", 0, 1),
    "is_active_member": ("true or false", 0, 1),
    "estimated_salary": ("a number", 0, 250000),
    "points_earned": ("a whole number", 0, 1000),
}
# The fields that become one feature for each possible value, in the order of the features.
CATEGORIES = {
    "geography": ["France", "Germany", "Spain"],
    "gender": ["Female", "Male"],
    "card_type": ["DIAMOND", "GOLD", "PLATINUM", "SILVER"],
}
NAMES = [*NUMERICS, *CATEGORIES]

# The number of characters of a text that an error shows.
EXCERPT = 40
# A text with more brackets is refused as not a record, before a parser recurses into it.
BRACKETS = 64


class Transformer(hostler.Transformer):
    def preprocess(self, request, input):
        match input:
            case hostler.Json(text):
                return preprocess_record(request, text)
            case hostler.Bytes(blob):
                return preprocess_record(request, json_text(blob))
            case hostler.Tensors(tensors):
                return pass_on(request, tensors)

    def postprocess(self, request, outputs):
        note = request.note()
        if note == TENSORS:
            return hostler.Tensors(outputs)
        if note not in (RECORD, EXPLAIN):
            raise hostler.failed("the note is not one that preprocess leaves")
        return hostler.Json(answer(outputs, rows=1 if note == RECORD else 1 + len(NAMES)))


def preprocess_record(request, text):
    record = parse_record(text)
    explain = hostler.flag(request, "explain")
    row = features(record, scaling())
    rows = [row]
    if explain:
        request.set_note(EXPLAIN)
        rows += [occluded(row, name) for name in NAMES]
    return [hostler.tensor("input", "FP32", [len(rows), len(row)], sum(rows, []))]


def pass_on(request, tensors):
    """Passes tensors on: callers of the Open Inference Protocol call the model directly."""
    if hostler.flag(request, "explain"):
        raise hostler.unsupported('"explain" needs a record: tensors are passed on as they are')
    request.set_note(TENSORS)
    return tensors


def json_text(blob):
    media_type = blob.content_type.split(";")[0].strip(" \t").lower()
    if media_type != "application/json":
        raise hostler.unsupported(f"content type {quoted(blob.content_type)}: expected application/json")
    try:
        return blob.data.decode()
    except UnicodeDecodeError:
        raise not_json() from None


# The record


def parse_record(text):
    """Returns the values of all fields, with booleans as 1 and 0. All errors are the caller's
    fault."""
    members = parse_object(text)
    unknown = sorted(set(members) - set(NAMES))
    if unknown:
        raise unknown_field(unknown[0])
    record = {}
    for name, (expected, low, high) in NUMERICS.items():
        value = members.get(name)
        if not is_allowed(value, expected, low, high):
            bounds = "" if expected == "true or false" else f" from {low} to {high}"
            raise wrong_field(name, members, expected + bounds)
        record[name] = float(value)
    for name, words in CATEGORIES.items():
        if members.get(name) not in words:
            raise wrong_field(name, members, f"one of {', '.join(words)}")
        record[name] = members[name]
    return record


def parse_object(text):
    """Parses the text as an object. All numbers are floats, so that `5.0` is a whole number and a
    long number is not refused. If a name occurs twice, the last one counts."""
    if text.count("[") + text.count("{") > BRACKETS:
        raise hostler.invalid(None, "expected a flat object, got too many brackets")
    try:
        value = json.loads(text, parse_int=float, parse_constant=refuse)
    except ValueError:
        raise not_json() from None
    if has_half_pair(text):
        raise not_json()
    if not isinstance(value, dict):
        kind = shown(value) if value is None else kind_of(value)
        raise hostler.invalid(None, f"expected an object with the fields of a record, got {kind}")
    return value


def refuse(constant):
    raise ValueError(constant)


HALF_PAIR = re.compile(r"\\ud[89ab]..(?!\\ud[c-f])|(?<!\\ud[89ab]..)\\ud[c-f]", re.IGNORECASE)


def has_half_pair(text):
    """Returns whether a valid JSON text escapes half a surrogate pair, which is not a character."""
    return HALF_PAIR.search(text.replace("\\\\", " ")) is not None


def not_json():
    return hostler.invalid(None, "the input is not valid JSON")


def is_allowed(value, expected, low, high):
    if expected == "true or false":
        return isinstance(value, bool)
    if not isinstance(value, float) or not low <= value <= high:
        return False
    return expected == "a number" or value.is_integer()


def wrong_field(name, members, expected):
    got = shown(members[name]) if name in members else "nothing"
    return hostler.invalid(name, f"{name}: expected {expected}, got {got}")


def unknown_field(name):
    known = closest(name)
    hint = f"did you mean {known}?" if known else f"a record has {', '.join(NAMES)}"
    return hostler.invalid(cut(name), f"unknown field {quoted(name)}: {hint}")


# How errors describe a value


def kind_of(value):
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, float):
        return "a number"
    return "a text" if isinstance(value, str) else "an array"


def shown(value):
    match value:
        case None:
            return "null"
        case True | False:
            return "true" if value else "false"
        case float():
            return shown_number(value)
        case str():
            return f"the text {quoted(value)}"
        case list():
            return "an array"
    return "an object"


def shown_number(value):
    """At most six decimals, because the languages disagree on when to use an exponent."""
    size = abs(value)
    if size >= 1e9:
        return "a huge number"
    millionth = millionths(size)
    if millionth == 0 and size > 0:
        return "a tiny number"
    about = "" if millionth / 1e6 == size else "about "
    sign = "-" if value < 0 else ""
    digits = f"{millionth // 1000000}.{millionth % 1000000:06}"
    return about + sign + digits.rstrip("0").rstrip(".")


def quoted(text):
    """Returns the text in quotes, truncated if it is long."""
    return f'"{cut(text)}"'


def cut(text):
    return text if len(text) <= EXCERPT else text[:EXCERPT] + "…"


def closest(name):
    """Returns the field with the nearest name, if at most a third of its letters differ. Case and
    separators are ignored: `CreditScore` matches `credit_score`."""
    near = [(distance(letters(name), letters(known)), known) for known in NAMES]
    near = [(steps, known) for steps, known in near if steps * 3 <= len(letters(known))]
    return min(near, key=lambda pair: pair[0])[1] if near else None


def letters(name):
    """Returns the first 20 letters; no field name is longer."""
    kept = [letter for letter in name if letter not in "_- "][:20]
    return [letter.lower() if letter.isascii() else letter for letter in kept]


def distance(a, b):
    """Returns the edit distance: letters to insert, delete, replace or swap with the next one."""
    # steps[i][j]: the distance between the first i letters of a and the first j letters of b.
    steps = [[i + j for j in range(len(b) + 1)] for i in range(len(a) + 1)]
    for i in range(1, len(a) + 1):
        for j in range(1, len(b) + 1):
            replaced = steps[i - 1][j - 1] + (a[i - 1] != b[j - 1])
            steps[i][j] = min(replaced, steps[i - 1][j] + 1, steps[i][j - 1] + 1)
            if i > 1 and j > 1 and a[i - 1] == b[j - 2] and a[i - 2] == b[j - 1]:
                steps[i][j] = min(steps[i][j], steps[i - 2][j - 2] + 1)
    return steps[-1][-1]


# The features

_scaling = None


def scaling():
    """Returns the mean and scale of each numeric field in the training data. Read once per
    instance."""
    global _scaling
    if _scaling is None:
        _scaling = parse_scaling(hostler.asset("scaling"))
    return _scaling


def parse_scaling(data):
    try:
        value = json.loads(data.decode(), parse_int=float, parse_constant=refuse)
        # Bounds that real data never reaches. They keep every feature in the range of an f32.
        pairs = list(zip(nine(value["mean"], -1e12), nine(value["scale"], 1e-12)))
    except (ValueError, KeyError, TypeError, RecursionError):
        raise hostler.failed(
            'asset "scaling": expected nine numbers as "mean" and nine above 0 as "scale"'
        ) from None
    return dict(zip(NUMERICS, pairs))


def nine(numbers, low):
    """Returns nine numbers from `low` to 1e12, or raises a ValueError."""
    in_bounds = [isinstance(number, float) and low <= number <= 1e12 for number in numbers]
    if not isinstance(numbers, list) or len(numbers) != len(NUMERICS) or not all(in_bounds):
        raise ValueError
    return numbers


def features(record, scaling):
    """Returns nine scaled numbers, then 1 or 0 for each value of a category. Computed in 64 bits;
    `struct` rounds each once."""
    row = [(record[name] - mean) / scale for name, (mean, scale) in scaling.items()]
    for name, words in CATEGORIES.items():
        row += [1.0 if word == record[name] else 0.0 for word in words]
    return row


def occluded(row, name):
    """Returns the row without the information of one field: a numeric field is set to its mean, a
    category to no value."""
    columns = [*NUMERICS] + [name for name, words in CATEGORIES.items() for _ in words]
    return [0.0 if column == name else feature for column, feature in zip(columns, row)]


# The answer


def answer(outputs, rows):
    """Takes rows of two probabilities, to stay and to leave. The rows after the first are the
    record without one field each; the difference is what that field contributes."""
    probabilities = hostler.named(outputs, "probabilities")
    expected, got = f"FP32 [{rows},2]", hostler.described(probabilities)
    if expected != got:
        raise hostler.failed(f'tensor "probabilities": expected {expected}, got {got}')
    probability, *others = leaving = hostler.elements(probabilities)[1::2]
    for row, p in enumerate(leaving):
        # A sum of many trees can be slightly above 1.
        if not -0.001 <= p <= 1.001:
            raise hostler.failed(f'tensor "probabilities": row {row} is no probability')

    churn = "true" if probability >= CHURN else "false"
    text = f'{{"churn":{churn},"probability":{fixed(probability)},"risk":"{risk(probability)}"'
    if others:
        pairs = [f'"{name}":{fixed(probability - other)}' for name, other in zip(NAMES, others)]
        text += f',"contributions":{{{",".join(pairs)}}}'
    return text + "}"


def risk(probability):
    if probability >= HIGH_RISK:
        return "high"
    return "medium" if probability >= MEDIUM_RISK else "low"


def fixed(value):
    """Formats with six decimals, rounding halves away from zero, never as `-0.000000`. The
    languages' own formats round halves differently."""
    millionth = millionths(abs(value))
    sign = "-" if value < 0 and millionth > 0 else ""
    return f"{sign}{millionth // 1000000}.{millionth % 1000000:06}"


def millionths(size):
    """Returns the nearest whole number of millionths. `size` is not negative and below 1e9."""
    return math.floor(size * 1e6 + 0.5)
