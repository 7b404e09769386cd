"""Tests of what is pure enough in remote_executor.server."""
