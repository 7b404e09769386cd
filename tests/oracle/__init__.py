"""
A differential oracle: what a program means at home and under fork, it must mean on a farm.

The programs stand in ``programs/``, a file for each kind. Each is run at home (calls in place of
tasks), on a forked ``ProcessPoolExecutor``, and on farms: an embedded server, a server in an empty
folder elsewhere, one of another Python, and from another Python. What it shows must be the same,
or it must end in a ``PayloadError`` that names the object; anything else fails.
"""
