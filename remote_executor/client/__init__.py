"""The client's shell: the executor, its driver thread, and admin calls."""
