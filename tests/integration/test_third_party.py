"""
Libraries that pickle by name, with functions and classes of the user's own.

The same code as ``__main__`` and as a module beside it, on servers that have neither (issue's
proof: third-party code by name).
"""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.slow

PARTS = {
    "functools": """
import functools, operator

def scale(x, by=1):
    return x * by

def check(run):
    assert run(functools.partial(scale, by=3), 2) == 6
    assert run(functools.partial(functools.partial(scale), by=4), 2) == 8
    assert run(functools.reduce, operator.add, [1, 2, 3]) == 6
    assert run(functools.reduce, scale, [1, 2, 3]) == 6
    assert run(operator.attrgetter("denominator"), 5) == 1
    assert run(operator.itemgetter(1), "ab") == "b"
    assert run(operator.methodcaller("upper"), "ab") == "AB"
    assert run(sorted, [3, 1, 2], key=functools.partial(scale, by=-1)) == [3, 2, 1]
""",
    "joblib": """
import joblib
from joblib.parallel import BatchedCalls

def double(x):
    return 2 * x

def check(run):
    calls = [joblib.delayed(double)(i) for i in range(5)]
    assert run(BatchedCalls(calls, (joblib.parallel.SequentialBackend(), None))) == [0, 2, 4, 6, 8]
    wrapped = joblib.wrap_non_picklable_objects(lambda x: double(x) + 1)
    assert run(wrapped, 2) == 5
    assert run(joblib.hash, [1, 2]) == joblib.hash([1, 2])
""",
    "attrs": """
import attr, attrs

@attrs.define
class Point:
    x: int = attrs.field(validator=attrs.validators.instance_of(int))
    y: int = 0

@attr.s(frozen=True, auto_attribs=True)
class Old:
    name: str
    parts: list = attr.Factory(list)

def move(point, by):
    assert isinstance(point, Point)
    return attrs.evolve(point, x=point.x + by)

def check(run):
    assert run(move, Point(1), 2) == Point(3)
    assert type(run(move, Point(1), 2)) is Point
    assert run(attrs.asdict, Point(1)) == {"x": 1, "y": 0}
    assert run(lambda old: old, Old("x")) == Old("x")
    try:
        run(Point, "no number")
    except TypeError as error:
        assert "must be" in str(error)
    else:
        raise AssertionError
""",
    "pydantic": """
import enum
import pydantic

class Colour(enum.Enum):
    RED = "red"

class Item(pydantic.BaseModel):
    name: str
    price: float = pydantic.Field(gt=0)
    colour: Colour = Colour.RED

    @pydantic.field_validator("name")
    @classmethod
    def title(cls, value):
        return value.title()

class Box(pydantic.BaseModel):
    items: list[Item]

def total(box):
    assert isinstance(box, Box) and all(isinstance(each, Item) for each in box.items)
    return sum(each.price for each in box.items)

def parse(text):
    return Box.model_validate_json(text)

def check(run):
    box = Box(items=[Item(name="nut", price=1), Item(name="bolt", price=2)])
    assert run(total, box) == 3
    again = run(parse, box.model_dump_json())
    assert type(again) is Box and again == box and again.items[0].colour is Colour.RED
    assert run(Item.model_validate, {"name": "x", "price": 1}).name == "X"
    try:
        run(parse, '{"items": [{"name": "x", "price": -1}]}')
    except pydantic.ValidationError as error:
        assert error.error_count() == 1
    except Exception as error:
        assert "greater than 0" in str(error)
    else:
        raise AssertionError
""",
    "numpy": """
import numpy as np

def half(x):
    return x / 2

def apply(ufunc, *arrays):
    return ufunc(*arrays)

def check(run):
    array = np.arange(6.0)
    assert (run(np.add, array, 1) == array + 1).all()
    assert run(np.multiply.reduce, array + 1) == 720
    assert (run(apply, np.hypot, array, array) == np.hypot(array, array)).all()
    assert (run(lambda: np.frompyfunc(half, 1, 1)(array)) == array / 2).all()
    assert (run(np.vectorize(half), array) == array / 2).all()
    assert (run(np.apply_along_axis, half, 0, array) == array / 2).all()
    assert run(np.dtype, "f4") == np.dtype("f4")
""",
    "pandas": """
import pandas as pd

def double(x):
    return 2 * x

def spread(group):
    return group.max() - group.min()

def check(run):
    frame = pd.DataFrame({"key": list("aab"), "value": [1, 3, 5]})
    assert list(run(frame["value"].apply, double)) == [2, 6, 10]
    assert list(run(lambda f: f["value"].map(double), frame)) == [2, 6, 10]
    found = run(lambda f: f.groupby("key")["value"].agg(spread), frame)
    assert dict(found) == {"a": 2, "b": 0}
    assert run(pd.DataFrame.assign, frame, twice=double(frame.value))["twice"].sum() == 18
""",
}

RUN = """
if __name__ == "__main__":
    import sys
    from remote_executor import FarmExecutor
    with FarmExecutor(addresses=sys.argv[1]) as executor:
        check(lambda fn, *args, **kwargs: executor.submit(fn, *args, **kwargs).result(40))
    print("fine")
"""


@pytest.mark.parametrize("library", PARTS)
@pytest.mark.parametrize("place", ["main", "module"])
def test_with_code_of_the_users_own(
    library, place, run_script, addresses, tmp_path, require_module
):
    if library != "functools":
        require_module(library)
    source = PARTS[library]
    if place == "module":
        (tmp_path / "own_part.py").write_text(source)
        source = "from own_part import check\n"

    code, out, err = run_script(source + RUN, args=addresses[:1], limit=60)

    assert (out, code) == ("fine\n", 0), err
