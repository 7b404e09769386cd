"""Results that outlive the program: what they are called (keys) and where they are (store)."""
