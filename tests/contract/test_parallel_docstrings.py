"""Each public docstring of ``parallel`` stands by itself, and its examples do what they say."""

from __future__ import annotations

import inspect
import re
import textwrap

import pytest

import remote_executor.parallel as p

IMPORT = "import remote_executor.parallel as p"
WITH_METHODS = ("Channel", "Kernel", "Ptree")
INSIDE = {"Kernel.submitter", "Kernel.view"}
"""What the other modules of ``parallel`` use."""


def documented():
    """Yield the name and the object of all that has a docstring for users."""
    for name in p.__all__:
        thing = getattr(p, name)
        if not thing.__module__.startswith("remote_executor.parallel"):
            continue
        yield name, thing
        if name in WITH_METHODS:
            for method, function in vars(thing).items():
                is_public = not method.startswith("_") and f"{name}.{method}" not in INSIDE
                if is_public and inspect.isfunction(function):
                    yield f"{name}.{method}", function


DOCUMENTED = dict(documented())


def examples(thing):
    """Return the programs in a docstring."""
    doc = inspect.getdoc(thing)
    found = re.findall(r"::\n\n((?:    .*\n|\n)+)", doc + "\n")
    return [textwrap.dedent(each) for each in found]


@pytest.mark.parametrize("name", DOCUMENTED)
def test_it_has_an_example_that_shadows_nothing(name):
    programs = examples(DOCUMENTED[name])

    assert programs
    for program in programs:
        assert IMPORT in program.splitlines()
        assert re.search(rf"\b{name.rpartition('.')[2]}\b|with p\.make_kernel|\[", program)


@pytest.mark.parametrize("name", DOCUMENTED)
def test_it_stands_by_itself(name):
    """Whoever reads it in ``help()`` need not look elsewhere for what an argument is."""
    doc = inspect.getdoc(DOCUMENTED[name])

    assert not re.search(r"\b[Aa]s (?:for |with )?:\w+:|[Oo]therwise as", doc)


def checked(program):
    """Return a program that checks what its comments say, and how many it checks."""
    lines = []
    count = 0
    for line in program.splitlines():
        found = re.fullmatch(r"( *)(\S.*[^:,])  # (.+)", line)
        if found:
            indent, call, value = found.groups()
            line = f"{indent}check(({call}), {value!r})"
            count += 1
        lines.append(line)
    return "\n".join(lines), count


def check(value, words):
    assert repr(value) == words


@pytest.mark.parametrize("name", DOCUMENTED)
def test_its_example_is_true(name):
    for program in examples(DOCUMENTED[name]):
        checking, count = checked(program)
        assert count == program.count("  # ")
        exec(compile(checking, f"<example of {name}>", "exec"), {"check": check})
