"""Tests of one module each: no thread, no socket, no clock."""
