"""Hypothesis state machines on the machines and on a simulated farm."""
