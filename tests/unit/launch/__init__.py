"""Tests of the launcher, a module at a time."""
