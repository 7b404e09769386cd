"""Starting and ending several servers with one call."""
