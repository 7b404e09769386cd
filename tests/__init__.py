"""The tests of remote_executor: see pyproject.toml for how they run."""
