"""Functions and classes: what they are made of, and what stands for them in a pickle."""
