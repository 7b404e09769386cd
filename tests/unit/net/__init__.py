"""Tests of remote_executor.net, with real descriptors where nothing else will do."""
