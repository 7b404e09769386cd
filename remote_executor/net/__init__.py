"""The world outside: addresses, streams, the event loop."""
