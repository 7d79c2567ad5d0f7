"""Generates bank customers, and whether each of them left.

Nothing here comes from real people: a seeded generator draws plausible customers, and a handwritten
rule assigns each a probability of leaving. About one in five leaves.
"""

import math

import numpy as np


def choose(rng, weights):
    """Returns one key of `weights`, drawn by weight."""
    keys = list(weights)
    return keys[int(rng.choice(len(keys), p=list(weights.values())))]


def whole(value, low, high):
    return int(min(max(round(float(value)), low), high))


def money(value, high):
    return round(min(max(float(value), 0.0), high), 2)


def customer(rng):
    geography = choose(rng, {"France": 0.50, "Germany": 0.25, "Spain": 0.25})
    gender = choose(rng, {"Female": 0.45, "Male": 0.55})
    card_type = choose(
        rng, {"DIAMOND": 0.15, "GOLD": 0.25, "PLATINUM": 0.20, "SILVER": 0.40}
    )
    age = whole(18 + rng.gamma(4.5, 4.8), 18, 100)
    # Many French and Spanish customers keep no balance; nearly all Germans do.
    empty = rng.random() < (0.03 if geography == "Germany" else 0.46)
    balance = 0.0 if empty else money(rng.normal(120_000, 38_000), 300_000)
    products = {1: 0.34, 2: 0.61, 3: 0.04, 4: 0.01}
    if balance > 0:
        products = {1: 0.62, 2: 0.32, 3: 0.05, 4: 0.01}
    points = {"DIAMOND": 650, "GOLD": 530, "PLATINUM": 590, "SILVER": 440}
    return {
        "credit_score": whole(rng.normal(650, 97), 300, 850),
        "age": age,
        "tenure": int(rng.integers(0, 11)),
        "balance": balance,
        "num_of_products": int(choose(rng, products)),
        "has_cr_card": bool(rng.random() < 0.70),
        # Older customers bank a little more actively.
        "is_active_member": bool(rng.random() < 0.46 + 0.002 * (age - 18)),
        "estimated_salary": money(rng.gamma(3.2, 31_000), 250_000),
        "points_earned": whole(rng.normal(points[card_type], 190), 0, 1000),
        "geography": geography,
        "gender": gender,
        "card_type": card_type,
    }


def chance_of_leaving(record):
    """The rule behind the labels, which the model has to learn."""
    age = record["age"]
    # The tendency to leave grows until the age of about 58 and decreases in retirement.
    score = -3.2 + 5.0 * math.exp(-(((age - 58) / 14) ** 2))
    score += {1: 0.5, 2: -1.1, 3: 2.6, 4: 4.0}[record["num_of_products"]]
    score += {"France": 0.0, "Germany": 1.1, "Spain": 0.1}[record["geography"]]
    score += 0.5 if record["gender"] == "Female" else 0.0
    score -= (1.1 + 0.03 * max(age - 40, 0)) * record["is_active_member"]
    score += 0.6 * (record["balance"] > 150_000)
    score -= 0.003 * (record["credit_score"] - 650)
    score -= 0.05 * (record["tenure"] - 5)
    score -= 0.0015 * (record["points_earned"] - 520)
    score += 0.4 if record["estimated_salary"] < 40_000 else 0.0
    score -= 0.1 * record["has_cr_card"]
    score += {"DIAMOND": -0.3, "GOLD": 0.0, "PLATINUM": -0.1, "SILVER": 0.1}[
        record["card_type"]
    ]
    return 1 / (1 + math.exp(-1.3 * score))


def draw(count, seed):
    """Returns `count` customers and, for each, 1 if the customer left."""
    rng = np.random.default_rng(seed)
    records = [customer(rng) for _ in range(count)]
    left = [int(rng.random() < chance_of_leaving(record)) for record in records]
    return records, np.array(left)
