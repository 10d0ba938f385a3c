"""What training commands ask of the machine: precision, cores, memory."""

from __future__ import annotations

import ctypes
import os
import sys

import torch


def bf16_helps() -> bool:
    """Whether this machine multiplies matrices faster in bf16."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def allowed_cores() -> int:
    """The cores that this process may use, which can be fewer than the machine has (`taskset`, containers)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def use_all_cores() -> None:
    """Share the cores among the processes of this machine: `accelerate launch` starts each with a single thread."""
    torch.set_num_threads(max(1, allowed_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))


def keep_freed_memory() -> None:
    """Let glibc reuse large blocks instead of handing them back to the system after each layer.

    On a CPU the page faults of new blocks otherwise cost as much as the arithmetic.
    """
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if hasattr(libc, "mallopt"):
        m_trim_threshold, m_mmap_threshold = -1, -3
        libc.mallopt(m_mmap_threshold, 1 << 30)
        libc.mallopt(m_trim_threshold, -1)


def peak_memory_gb() -> float | None:
    """The most memory that this process has had, on Linux."""
    if sys.platform != "linux":
        return None
    import resource  # not on Windows

    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2)
