"""All measurements, in their groups."""

from __future__ import annotations

from tests.bench.bars import Measure
from tests.bench.code import CODE
from tests.bench.measures import EXECUTOR
from tests.bench.network import NETWORK
from tests.bench.parallel import PARALLEL
from tests.bench.scripts import SCRIPTS
from tests.bench.share import SHARE
from tests.bench.ssh import SSH
from tests.bench.ways import WAYS

__all__ = ["GROUPS", "MEASURES"]

GROUPS = {
    "executor": EXECUTOR,
    "parallel": PARALLEL,
    "network": {**NETWORK, **SSH},
    "code": {**CODE, **SCRIPTS, **SHARE},
    "ways": WAYS,
}

MEASURES: dict[str, Measure] = {
    **EXECUTOR,
    **PARALLEL,
    **NETWORK,
    **SSH,
    **CODE,
    **SCRIPTS,
    **SHARE,
    **WAYS,
}
