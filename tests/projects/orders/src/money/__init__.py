"""What can be done with amounts in cents."""
