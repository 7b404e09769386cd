"""The user's modules on servers: which they are, and who asks whom for them."""
