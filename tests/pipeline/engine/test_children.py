from pathlib import Path

import pytest

from avsnn.pipeline.engine.children import cores_of_quotas

V1, V2 = "4:cpu,cpuacct:/jobs/7\n3:memory:/jobs\n", "0::/jobs/7\n"


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


@pytest.mark.parametrize(
    ("membership", "files", "cores"),
    [
        (V2, {"jobs/7/cpu.max": "250000 100000\n"}, [3]),
        (V2, {"jobs/7/cpu.max": "20000 100000\n"}, [1]),
        (V2, {"jobs/7/cpu.max": "max 100000\n", "jobs/cpu.max": "800000 100000\n"}, [8]),
        (V2, {"jobs/7/cpu.max": "400000 100000\n", "cpu.max": "150000 50000\n"}, [4, 3]),
        # A container that sees its own group as the root of all groups.
        ("0::/\n", {"cpu.max": "100000 100000\n"}, [1]),
        (
            V1,
            {"cpu/jobs/7/cpu.cfs_quota_us": "150000\n", "cpu/jobs/7/cpu.cfs_period_us": "100000\n"},
            [2],
        ),
        (V1, {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, []),
        (V1, {"cpu.max": "100000 100000\n"}, []),
        (V2, {"jobs/7/cpu.max": "nonsense\n"}, []),
        ("", {}, []),
    ],
)
def test_a_cpu_quota_counts_as_the_cores_whose_time_it_gives(
    tmp_path: Path, membership: str, files: dict[str, str], cores: list[int]
) -> None:
    write(tmp_path, files)
    (tmp_path / "membership").write_text(membership)
    assert cores_of_quotas(tmp_path, tmp_path / "membership") == cores


def test_a_system_without_control_groups_has_no_quota(tmp_path: Path) -> None:
    assert cores_of_quotas(tmp_path, tmp_path / "none") == []
