"""Tests of remote_executor.wire."""
