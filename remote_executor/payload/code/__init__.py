"""Code on its way to workers: names of ``__main__``, values, imports, and definitions."""
