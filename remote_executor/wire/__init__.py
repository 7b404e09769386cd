"""Bytes to messages and back: frames, links, sessions. Pure: no socket, thread or clock in here."""
