from __future__ import annotations

import pytest

from tests.unit.server.parts import Parts


@pytest.fixture
def parts():
    made = Parts()
    yield made
    made.close()
