from __future__ import annotations


def part(amount: int, percent: int) -> int:
    return (amount * percent + 50) // 100
