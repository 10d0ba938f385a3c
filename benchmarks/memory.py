"""Peak memory of a part of a program."""

from __future__ import annotations

from pathlib import Path
from threading import Event, Thread

import torch


class PeakMemory:
    """The most memory of a kind, in bytes, since entering and beyond what there was then.

    On a CPU it is anonymous memory (RssAnon; pages of mapped files can be dropped at any time), read every 5 ms.

    Args:
        device: "cpu" or "cuda".
    """

    def __init__(self, device: str = "cpu"):
        self.device, self.bytes, self._done = device, 0, Event()

    def __enter__(self) -> PeakMemory:
        self._before = self._now()
        if self.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        self._thread = Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(0.005):
            self.bytes = max(self.bytes, self._now() - self._before)

    def _now(self) -> int:
        if self.device == "cuda":
            return torch.cuda.max_memory_allocated()
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return 1024 * int(status.partition("RssAnon:")[2].split()[0])
