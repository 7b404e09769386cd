"""
Objects to bytes and buffers, and back. Pure: no socket, thread, clock or process in here.

::

    caller                                              worker
    ------                                              ------
    FunctionCache.encode(fn) -> Encoded   ─ once ─>     FunctionTable.define(number, ...)
      by_value    functions that must travel              mains    the namespace of __main__
      captures    is the last pickle still right?         copies   buffers that are its own
    pickles.dump((args, kwargs))          ─ each ─>     pickles.load -> call it
    pickles.load(body, buffers)           <─ each ─     pickles.dump_result(result)
    failures.decode_failure(...)          <─ each ─     failures.encode_failure(error)

Where the two run different Pythons, ``by_source`` takes the place of ``by_value``: ``finder`` finds
the text of functions and classes, ``source`` compiles it at the other end.

The supervisor between the two never opens any of these. ``cloudpickle`` and ``tblib`` are
imported when the first object needs them, since most never do.
"""
