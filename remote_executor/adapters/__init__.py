"""Other libraries' engines, each in the one module that imports its library."""
