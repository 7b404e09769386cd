"""Counting the cores that a process may use: settings, affinity, control groups."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from remote_executor.cores import THREAD_VARIABLES, quota, thread_limits, usable_cores

V1 = "35 25 0:30 {top} /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct"
V2 = "29 22 0:26 {top} /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate"
OTHER = "36 25 0:31 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory"


@pytest.fixture
def system(tmp_path):
    """Return a function that makes a /proc and a /sys; it returns what stands before them."""

    def make(cgroup, mounts, files):
        proc = tmp_path / "proc" / "self"
        proc.mkdir(parents=True)
        if cgroup is not None:
            (proc / "cgroup").write_text(cgroup)
            (proc / "mountinfo").write_text("\n".join(mounts) + "\n")
        for name, text in files.items():
            path = tmp_path / "sys" / "fs" / "cgroup" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return str(tmp_path)

    return make


def v1(folder, used, period=100_000):
    return {
        f"cpu,cpuacct{folder}/cpu.cfs_quota_us": f"{used}\n",
        f"cpu,cpuacct{folder}/cpu.cfs_period_us": f"{period}\n",
    }


@pytest.mark.parametrize(
    ("text", "cores"),
    [
        ("max 100000\n", None),
        ("200000 100000\n", 2),
        ("150000 100000\n", 2),
        ("50000 100000\n", 1),
        ("1000 100000\n", 1),
        ("0 100000\n", None),
        ("nonsense\n", None),
        ("", None),
    ],
)
def test_quota_of_version_2(system, text, cores):
    root = system("0::/app\n", [V2.format(top="/")], {"app/cpu.max": text})

    assert quota(root) == cores


def test_quota_of_version_2_in_a_container_with_a_name_space_of_its_own(system):
    root = system("0::/\n", [V2.format(top="/")], {"cpu.max": "300000 100000\n"})

    assert quota(root) == 3


def test_the_least_quota_on_the_way_up_counts(system):
    root = system(
        "0::/kubepods/pod1/box\n",
        [V2.format(top="/")],
        {
            "kubepods/cpu.max": "900000 100000\n",
            "kubepods/pod1/cpu.max": "200000 100000\n",
            "kubepods/pod1/box/cpu.max": "max 100000\n",
        },
    )

    assert quota(root) == 2


@pytest.mark.parametrize(("used", "cores"), [(-1, None), (250_000, 3), (100_000, 1), (20_000, 1)])
def test_quota_of_version_1(system, used, cores):
    cgroup = "5:cpu,cpuacct:/app\n4:memory:/app\n0::/\n"
    root = system(cgroup, [OTHER, V1.format(top="/")], v1("/app", used))

    assert quota(root) == cores


def test_quota_of_version_1_where_a_container_sees_its_own_group_only(system):
    cgroup = "5:cpu,cpuacct:/docker/0123\n"
    root = system(cgroup, [V1.format(top="/docker/0123")], v1("", 200_000))

    assert quota(root) == 2


def test_quota_of_version_1_below_the_group_that_is_mounted(system):
    cgroup = "5:cpu,cpuacct:/docker/0123/job\n"
    files = {**v1("", 400_000), **v1("/job", 100_000)}
    root = system(cgroup, [V1.format(top="/docker/0123")], files)

    assert quota(root) == 1


def test_a_group_that_cannot_be_seen_is_looked_for_at_the_top(system):
    cgroup = "5:cpu,cpuacct:/../../elsewhere\n"
    root = system(cgroup, [V1.format(top="/")], v1("", 100_000))

    assert quota(root) == 1


def test_both_versions_at_once(system):
    root = system(
        "5:cpu,cpuacct:/app\n0::/app\n",
        [V1.format(top="/"), V2.format(top="/").replace("/cgroup ", "/cgroup/unified ")],
        {**v1("/app", 300_000), "unified/app/cpu.max": "200000 100000\n"},
    )

    assert quota(root) == 2


def test_a_place_with_a_blank_in_it(system):
    mount = V2.format(top="/").replace("/sys/fs/cgroup", "/sys/fs/cgroup/my\\040groups")
    root = system("0::/app\n", [mount], {"my groups/app/cpu.max": "100000 100000\n"})

    assert quota(root) == 1


@pytest.mark.parametrize(
    "files",
    [
        {"cpu.max": "200000 100000\n"},
        {"cpu/cpu.cfs_quota_us": "200000\n", "cpu/cpu.cfs_period_us": "100000\n"},
    ],
)
def test_without_proc_the_usual_places_are_read(system, files):
    assert quota(system(None, [], files)) == 2


def test_no_control_groups_at_all(tmp_path):
    assert quota(str(tmp_path)) is None


def refused(*_):
    raise PermissionError(1, "Operation not permitted")


def test_affinity_counts(monkeypatch):
    monkeypatch.delenv("PYTHON_CPU_COUNT", raising=False)
    monkeypatch.setattr("remote_executor.cores.quota", lambda: None)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {1, 5, 7}, raising=False)

    assert usable_cores() == 3


def test_a_quota_below_the_affinity_counts(monkeypatch):
    monkeypatch.delenv("PYTHON_CPU_COUNT", raising=False)
    monkeypatch.setattr("remote_executor.cores.quota", lambda: 2)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {1, 5, 7}, raising=False)

    assert usable_cores() == 2


def test_a_quota_above_the_affinity_does_not(monkeypatch):
    monkeypatch.delenv("PYTHON_CPU_COUNT", raising=False)
    monkeypatch.setattr("remote_executor.cores.quota", lambda: 20)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {1}, raising=False)

    assert usable_cores() == 1


@pytest.mark.parametrize("count", [6, None])
def test_where_affinity_is_refused_all_cores_count(monkeypatch, count):
    monkeypatch.delenv("PYTHON_CPU_COUNT", raising=False)
    monkeypatch.setattr("remote_executor.cores.quota", lambda: None)
    monkeypatch.setattr(os, "sched_getaffinity", refused, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: count)

    assert usable_cores() == (count or 1)


def test_where_there_is_no_affinity_all_cores_count(monkeypatch):
    monkeypatch.delenv("PYTHON_CPU_COUNT", raising=False)
    monkeypatch.setattr("remote_executor.cores.quota", lambda: None)
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)

    assert usable_cores() == 6


def count_in(*flags, **variables):
    code = "from remote_executor.cores import usable_cores; print(usable_cores())"
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    program = f"import sys; sys.path.insert(0, {root!r}); {code}"
    environ = {**os.environ, **variables}
    done = subprocess.run(
        [sys.executable, *flags, "-c", program], env=environ, capture_output=True, check=True
    )
    return int(done.stdout)


@pytest.mark.parametrize(
    ("flags", "variables", "cores"),
    [
        ([], {"PYTHON_CPU_COUNT": "37"}, 37),
        (["-X", "cpu_count=23"], {}, 23),
        (["-X", "cpu_count=23"], {"PYTHON_CPU_COUNT": "37"}, 23),
        (["-X", "cpu_count=default"], {"PYTHON_CPU_COUNT": "default"}, None),
        (["-E"], {"PYTHON_CPU_COUNT": "37"}, None),
    ],
)
def test_what_the_user_says_counts_as_in_python_3_13(flags, variables, cores):
    assert count_in(*flags, **variables) == (cores or count_in(PYTHON_CPU_COUNT="default"))


def test_thread_limits_divide_the_cores_among_the_workers():
    assert thread_limits({}, 2, 8) == dict.fromkeys(THREAD_VARIABLES, "4")
    assert thread_limits({}, 3, 8) == dict.fromkeys(THREAD_VARIABLES, "2")
    assert thread_limits({}, 9, 8) == dict.fromkeys(THREAD_VARIABLES, "1")


def test_thread_limits_leave_alone_what_is_set():
    limits = thread_limits({"MKL_NUM_THREADS": "7", "NUMEXPR_NUM_THREADS": ""}, 2, 8)

    assert "MKL_NUM_THREADS" not in limits
    assert limits["NUMEXPR_NUM_THREADS"] == limits["OMP_NUM_THREADS"] == "4"


@pytest.mark.parametrize("value", ["3", "3,2", " 3 "])
def test_a_limit_for_openmp_counts_for_the_others(value):
    limits = thread_limits({"OMP_NUM_THREADS": value}, 2, 8)

    assert set(limits) == set(THREAD_VARIABLES) - {"OMP_NUM_THREADS"}
    assert set(limits.values()) == {"3"}
