"""What programs mean on a farm, by the measure of fork and of home."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from tests.oracle.catalog import Program, read_programs
from tests.oracle.known import read_known, surprises
from tests.oracle.runner import MODES, Oracle, Outcome, judge
from tests.support.tools import INSISTED

PROGRAMS = read_programs()
KNOWN = read_known()
EACH = 3
"""Every third program is of the sample that each run of the tests takes, in one of the ways."""

AT_A_TIME = 3
"""Programs that run at a time, since they wait for processes half of the time."""


@pytest.fixture(scope="module")
def oracle(tmp_path_factory):
    with closing(Oracle(tmp_path_factory.mktemp("oracle"), PROGRAMS)) as oracle:
        yield oracle


def way_of(number):
    """Return the way in which a program of the sample is run."""
    # Another Python than ours has hardly ever the libraries.
    ways = MODES[:2] if PROGRAMS[number].needs else MODES
    return ways[number // EACH % len(ways)]


@pytest.fixture(scope="module")
def sampled(oracle, request):
    """Return the verdicts of each program whose test runs, in one way, as futures."""
    numbers = [
        each.callspec.params["number"]
        for each in request.session.items
        if getattr(each, "originalname", "") == test_a_program_in_one_of_the_ways.__name__
    ]
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        yield {
            number: pool.submit(oracle.judge, PROGRAMS[number], [way_of(number)])
            for number in numbers
        }
        pool.shutdown(cancel_futures=True)


def check(judged):
    """Fail if programs fared otherwise than is known; skip if a library is missing."""
    odd = [text for program, verdicts in judged for text in surprises(program.id, verdicts, KNOWN)]
    if odd:
        pytest.fail("\n".join(odd), pytrace=False)
    skipped = {
        verdict.reason
        for _, verdicts in judged
        for verdict in verdicts.values()
        if verdict.word == "skipped"
    }
    # Another Python has hardly ever all libraries.
    lacking = {reason for reason in skipped if "is missing" in reason and "(Python" not in reason}
    if lacking and "oracle" in INSISTED:
        pytest.fail(f"{sorted(lacking)}, and REMOTE_EXECUTOR_TEST_EXTRAS insists on it")
    if skipped and (len(judged) == 1 or lacking):
        pytest.skip("; ".join(sorted(skipped)))


SAMPLE = range(0, len(PROGRAMS), EACH)


@pytest.mark.parametrize("number", SAMPLE, ids=[PROGRAMS[number].id for number in SAMPLE])
def test_a_program_in_one_of_the_ways(sampled, number):
    check([(PROGRAMS[number], sampled[number].result())])


@pytest.mark.skipif("oracle" not in INSISTED, reason="minutes: REMOTE_EXECUTOR_TEST_EXTRAS=oracle")
@pytest.mark.timeout(1200)
def test_all_programs_in_one_way_at_least(oracle):
    """Embedded, and every tenth in another one; ``python -m tests.oracle`` runs them in all."""
    ways = [
        [MODES[0], *([] if number % 10 else [MODES[1 + number // 10 % 3]])]
        for number in range(len(PROGRAMS))
    ]
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        check(list(zip(PROGRAMS, pool.map(oracle.judge, PROGRAMS, ways), strict=True)))


def test_the_list_of_what_is_known_names_programs_that_are_there():
    assert {(id, mode) for id, mode in KNOWN} <= {
        (program.id, mode) for program in PROGRAMS for mode in MODES
    }


# -- the judge


def ended(*shown, error=None, refusal=False):
    return Outcome(list(shown), error, refusal, "")


def program(**settings):
    return Program("kind", "name", "M = 1\n", **settings)


def test_the_measure_is_fork_and_home_where_fork_refuses():
    home, fork = ended("1"), ended("2")
    assert judge(program(), home, fork, ended("2")).word == "right"
    assert judge(program(), home, fork, ended("1")).word == "wrong"
    assert judge(program(measure="home"), home, fork, ended("1")).word == "right"
    refused = ended(error=("PicklingError", "lambda"), refusal=True)
    assert judge(program(), home, refused, ended("1")).word == "right"
    assert judge(program(also=["3, 4"]), home, fork, ended("3", "4")).word == "right"


def test_a_refusal_must_name_what_is_refused():
    right = ended("1", "2")
    refused = ended("1", error=("PayloadError", "M cannot travel"), refusal=True)
    assert judge(program(), right, right, refused).word == "refused"
    assert judge(program(refuses="N"), right, right, refused).word == "wrong"
    refused.error = ("PayloadError", "it cannot travel")
    assert judge(program(), right, right, refused).word == "wrong"


def test_what_fork_or_pickle_refuses_as_well_is_refused_rightly():
    home = ended("1")
    farm = ended(error=("PayloadError", "global 'M' cannot be pickled"), refusal=True)
    assert judge(program(), home, ended("1"), farm).word == "refused"
    fork = ended(error=("TypeError", "cannot pickle"), refusal=True)
    assert judge(program(), home, fork, farm).word == "right"
    home.refused = ("M",)
    assert judge(program(), home, ended("1"), farm).word == "right"
    home.refused = ("N",)
    assert judge(program(), home, ended("1"), farm).word == "refused"


def test_a_refusal_after_a_wrong_value_is_wrong():
    right = ended("1", "2")
    refused = ended("3", error=("PayloadError", "M"), refusal=True)
    assert judge(program(), right, right, refused).word == "wrong"


def test_another_error_is_wrong():
    right = ended("1")
    for error in (("KeyError", "M"), ("ended", "by 9"), ("RemoteModuleNotFound", "'m'")):
        assert judge(program(), right, right, ended(error=error)).word == "wrong"
    missing = ended(error=("RemoteModuleNotFound", "'m'"))
    assert judge(program(missing="m"), right, right, missing).word == "refused"


def test_a_program_that_fails_at_home_proves_nothing():
    failed = ended(error=("NameError", "M"))
    assert judge(program(), failed, failed, failed).word == "wrong"
