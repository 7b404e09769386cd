"""The decisions, without a thread or a socket."""
