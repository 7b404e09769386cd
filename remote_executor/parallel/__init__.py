"""
lparallel's kernel, channels, promises and cognates, on any ``concurrent.futures.Executor``.

::

    import operator
    import remote_executor.parallel as p

    with p.make_kernel(2):  # or ["host:port"], or any executor
        roots = p.pmap(abs, range(-3, 0))
        p.preduce(operator.add, roots)  # 6

==========  =====================================================================================
kernel      make_kernel, end_kernel, check_kernel, kernel_name, kernel_worker_count, task_category,
            task_priority, kill_tasks, task_categories_running, broadcast_task, Kernel,
            worker_index, server_worker_index
channel     Channel
promises    promise, future, delay, speculate, chain, force, fulfill, fulfill_with, fulfilled
maps        pmap, pstarmap, pmap_into, pmap_unordered, pmapc, pmapcan, pdotimes
reduces     preduce, preduce_partial, pmap_reduce
builtins    pany, pall, pfilter
finds       pevery, psome, pnotany, pnotevery, pfind, pcount, premove, each with _if and _if_not
sorts       psort
lets        plet, pfuncall, pand, por
functions   parallel_function, fork
trees       ptree
==========  =====================================================================================
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__all__ = [
    "Chain",
    "Channel",
    "Delay",
    "Kernel",
    "Promise",
    "Ptree",
    "broadcast_task",
    "chain",
    "check_kernel",
    "delay",
    "end_kernel",
    "force",
    "fork",
    "fulfill",
    "fulfill_with",
    "fulfilled",
    "future",
    "kernel_name",
    "kernel_worker_count",
    "kill_tasks",
    "make_kernel",
    "pall",
    "pand",
    "pany",
    "parallel_function",
    "pcount",
    "pcount_if",
    "pcount_if_not",
    "pdotimes",
    "pevery",
    "pfilter",
    "pfind",
    "pfind_if",
    "pfind_if_not",
    "pfuncall",
    "plet",
    "pmap",
    "pmap_into",
    "pmap_reduce",
    "pmap_unordered",
    "pmapc",
    "pmapcan",
    "pnotany",
    "pnotevery",
    "por",
    "preduce",
    "preduce_partial",
    "premove",
    "premove_if",
    "premove_if_not",
    "promise",
    "psome",
    "psort",
    "pstarmap",
    "ptree",
    "server_worker_index",
    "speculate",
    "task_categories_running",
    "task_category",
    "task_priority",
    "worker_index",
]

# Loaded when first used: workers import this package for the few lines that run on them.
_WHERE = {
    **dict.fromkeys(
        [
            "Kernel",
            "broadcast_task",
            "check_kernel",
            "end_kernel",
            "kernel_name",
            "kernel_worker_count",
            "kill_tasks",
            "make_kernel",
            "task_categories_running",
            "task_category",
            "task_priority",
        ],
        "kernel",
    ),
    **dict.fromkeys(["server_worker_index", "worker_index"], "remote_executor.server.worker"),
    "Channel": "channel",
    **dict.fromkeys(
        [
            "Chain",
            "Delay",
            "Promise",
            "chain",
            "delay",
            "force",
            "fulfill",
            "fulfill_with",
            "fulfilled",
            "future",
            "promise",
            "speculate",
        ],
        "promises",
    ),
    **dict.fromkeys(
        [
            "pdotimes",
            "pmap",
            "pmap_into",
            "pmap_unordered",
            "pmapc",
            "pmapcan",
            "pstarmap",
        ],
        "maps",
    ),
    **dict.fromkeys(
        [
            "pmap_reduce",
            "preduce",
            "preduce_partial",
        ],
        "reduces",
    ),
    **dict.fromkeys(
        [
            "pcount",
            "pcount_if",
            "pcount_if_not",
            "pevery",
            "pfind",
            "pfind_if",
            "pfind_if_not",
            "pnotany",
            "pnotevery",
            "premove",
            "premove_if",
            "premove_if_not",
            "psome",
        ],
        "finds",
    ),
    **dict.fromkeys(["pall", "pany", "pfilter"], "as_builtins"),
    **dict.fromkeys(["fork", "parallel_function"], "functions"),
    "psort": "sorts",
    **dict.fromkeys(
        [
            "pand",
            "pfuncall",
            "plet",
            "por",
        ],
        "lets",
    ),
    **dict.fromkeys(
        [
            "Ptree",
            "ptree",
        ],
        "trees",
    ),
}


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    where = _WHERE[name]
    module = import_module(where if "." in where else f"{__name__}.{where}")
    value = getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


if TYPE_CHECKING:
    from remote_executor.parallel.as_builtins import (
        pall,
        pany,
        pfilter,
    )
    from remote_executor.parallel.channel import (
        Channel,
    )
    from remote_executor.parallel.finds import (
        pcount,
        pcount_if,
        pcount_if_not,
        pevery,
        pfind,
        pfind_if,
        pfind_if_not,
        pnotany,
        pnotevery,
        premove,
        premove_if,
        premove_if_not,
        psome,
    )
    from remote_executor.parallel.functions import (
        fork,
        parallel_function,
    )
    from remote_executor.parallel.kernel import (
        Kernel,
        broadcast_task,
        check_kernel,
        end_kernel,
        kernel_name,
        kernel_worker_count,
        kill_tasks,
        make_kernel,
        task_categories_running,
        task_category,
        task_priority,
    )
    from remote_executor.parallel.lets import (
        pand,
        pfuncall,
        plet,
        por,
    )
    from remote_executor.parallel.maps import (
        pdotimes,
        pmap,
        pmap_into,
        pmap_unordered,
        pmapc,
        pmapcan,
        pstarmap,
    )
    from remote_executor.parallel.promises import (
        Chain,
        Delay,
        Promise,
        chain,
        delay,
        force,
        fulfill,
        fulfill_with,
        fulfilled,
        future,
        promise,
        speculate,
    )
    from remote_executor.parallel.reduces import (
        pmap_reduce,
        preduce,
        preduce_partial,
    )
    from remote_executor.parallel.sorts import (
        psort,
    )
    from remote_executor.parallel.trees import (
        Ptree,
        ptree,
    )
    from remote_executor.server.worker import server_worker_index, worker_index
