"""What a command sets for its whole process."""

import pytest
import torch

from vaekit.training import process


def test_a_launcher_that_gives_one_thread_does_not_leave_cores_idle(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    threads = []
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    monkeypatch.setattr(process, "cpu_count", lambda: 8)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    process.use_all_cores(torch.device("cpu"))
    assert threads == []
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    process.use_all_cores(torch.device("cuda"))
    assert threads == []
    process.use_all_cores(torch.device("cpu"))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    process.use_all_cores(torch.device("cpu"))
    assert threads == [8, 4]
