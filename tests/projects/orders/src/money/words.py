from __future__ import annotations

NAMES = ["no", "one", "two", "three", "four", "five"]


def in_words(amount: int) -> str:
    return f"{NAMES[amount]} cents"
