"""The server's shells: the supervisor, the process that makes workers, and the workers."""
