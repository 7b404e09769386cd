"""Tests of the client, as far as it needs no server."""
