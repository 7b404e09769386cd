"""Decisions: which server runs which task (client), which worker does (server). Pure."""
