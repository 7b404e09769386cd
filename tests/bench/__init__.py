"""Measurements of speed and memory, as ratios against other executors: see __main__."""
