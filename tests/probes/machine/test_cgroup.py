"""Fake control groups of both versions: every ancestor counts, page cache does not, no limit is None."""

from pathlib import Path

import pytest

from memplan.facts import GIB, MIB
from memplan.probes.machine.cgroup import MemoryLimit, memory_limit

V1_UNLIMITED = 9223372036854771712


def membership(root: Path, *lines: str) -> None:
    file = root / "proc/self/cgroup"
    file.parent.mkdir(parents=True)
    file.write_text("\n".join(lines) + "\n")


def group_v2(root: Path, path: str, limit: int | str, used: int = 0, cache: int = 0) -> None:
    folder = root / "sys/fs/cgroup" / path
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 12345\nactive_file 99\ninactive_file {cache}\n")


def group_v1(root: Path, path: str, limit: int, used: int = 0, cache: int = 0) -> None:
    folder = root / "sys/fs/cgroup/memory" / path
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.limit_in_bytes").write_text(f"{limit}\n")
    (folder / "memory.usage_in_bytes").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"inactive_file 1\ntotal_inactive_file {cache}\n")


def test_no_control_groups_at_all(tmp_path: Path) -> None:
    assert memory_limit(tmp_path) is None


@pytest.mark.parametrize("limit", ["max", "-1", ""])
def test_version_2_without_a_limit(tmp_path: Path, limit: str) -> None:
    membership(tmp_path, "0::/user.slice")
    group_v2(tmp_path, "user.slice", limit, used=GIB)
    assert memory_limit(tmp_path) is None


def test_version_1_writes_no_limit_as_a_huge_number(tmp_path: Path) -> None:
    membership(tmp_path, "4:memory:/job")
    group_v1(tmp_path, "job", V1_UNLIMITED, used=GIB)
    assert memory_limit(tmp_path) is None


def test_version_2_counts_inactive_files_as_available(tmp_path: Path) -> None:
    membership(tmp_path, "0::/app")
    group_v2(tmp_path, "app", 8 * GIB, used=5 * GIB, cache=2 * GIB)
    assert memory_limit(tmp_path) == MemoryLimit(limit=8 * GIB, available=5 * GIB)


def test_version_1_counts_inactive_files_of_its_children_too(tmp_path: Path) -> None:
    membership(tmp_path, "11:cpu,cpuacct:/other", "4:cpuset,memory:/app")
    group_v1(tmp_path, "app", 8 * GIB, used=5 * GIB, cache=2 * GIB)
    assert memory_limit(tmp_path) == MemoryLimit(limit=8 * GIB, available=5 * GIB)


@pytest.mark.parametrize("lower", ["", "a", "a/b", "a/b/c"])
def test_the_lowest_limit_of_all_ancestors_counts(tmp_path: Path, lower: str) -> None:
    membership(tmp_path, "0::/a/b/c")
    for path in ("", "a", "a/b", "a/b/c"):
        group_v2(tmp_path, path, (3 if path == lower else 9) * GIB)
    assert memory_limit(tmp_path) == MemoryLimit(3 * GIB, 3 * GIB)


def test_a_full_ancestor_leaves_less_than_a_lower_limit_below_it(tmp_path: Path) -> None:
    membership(tmp_path, "0::/pod/container")
    group_v2(tmp_path, "pod", 16 * GIB, used=15 * GIB)
    group_v2(tmp_path, "pod/container", 8 * GIB, used=2 * GIB)
    assert memory_limit(tmp_path) == MemoryLimit(limit=8 * GIB, available=GIB)


@pytest.mark.parametrize(("first", "second"), [(4, 6), (6, 4)])
def test_of_both_versions_the_lower_counts(tmp_path: Path, first: int, second: int) -> None:
    membership(tmp_path, "4:memory:/app", "0::/app")
    group_v1(tmp_path, "app", first * GIB)
    group_v2(tmp_path, "unified/app", second * GIB)
    assert memory_limit(tmp_path) == MemoryLimit(4 * GIB, 4 * GIB)


def test_a_container_sees_its_own_group_at_the_mount_point(tmp_path: Path) -> None:
    membership(tmp_path, "4:memory:/docker/1f2e3d")
    group_v1(tmp_path, "", 2 * GIB, used=512 * MIB)
    assert memory_limit(tmp_path) == MemoryLimit(2 * GIB, 1536 * MIB)


def test_a_path_that_leads_out_of_view_stays_below_the_mount_point(tmp_path: Path) -> None:
    membership(tmp_path, "0::/../../elsewhere")
    group_v2(tmp_path, "", 2 * GIB)
    group_v2(tmp_path, "../../elsewhere", GIB)
    assert memory_limit(tmp_path) == MemoryLimit(2 * GIB, 2 * GIB)


def test_usage_above_the_limit_leaves_nothing(tmp_path: Path) -> None:
    membership(tmp_path, "0::/app")
    group_v2(tmp_path, "app", GIB, used=2 * GIB)
    assert memory_limit(tmp_path) == MemoryLimit(GIB, 0)
