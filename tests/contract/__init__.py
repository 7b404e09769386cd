"""One body of tests, several executors."""
