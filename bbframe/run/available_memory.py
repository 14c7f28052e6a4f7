"""How many bytes of memory a process may still take: of the machine, and of the control groups that it lives in."""

from __future__ import annotations

import math
import re
from contextlib import suppress
from pathlib import Path

import torch

ROOT = Path("/")


def available_memory(root: Path = ROOT) -> float:
    """Bytes of main memory that can be used without swapping; inf where the system does not say.

    `root` is where /proc and /sys lie. A limit of a control group, of version 1 or 2, counts for the groups inside.
    """
    limits = [math.inf]
    with suppress(OSError):
        if found := re.search(r"MemAvailable:\s+(\d+) kB", (root / "proc/meminfo").read_text()):
            limits.append(int(found[1]) * 1024)
    with suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers:
                limits += _left(root / "sys/fs/cgroup", path, "memory.max", "memory.current", "inactive_file")
            elif "memory" in controllers.split(","):
                names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
                limits += _left(root / "sys/fs/cgroup/memory", path, *names)
    return min(limits)


def _left(top: Path, path: str, limit: str, used: str, reclaimable: str) -> list[float]:
    """What each control group from `path` up to the `top` has left."""
    found: list[float] = []
    own = top / path.lstrip("/")
    for group in (own, *own.parents):
        with suppress(OSError, ValueError):  # a container sees its own group at the top, and no path to it
            left = int((group / limit).read_text()) - int((group / used).read_text())
            with suppress(OSError):
                cache = re.search(rf"(?m)^{reclaimable} (\d+)$", (group / "memory.stat").read_text())
                left += int(cache[1]) if cache else 0
            found.append(max(0, left))
        if group == top:
            break
    return found


def available_gpu_memory(device: torch.device) -> float:
    """Bytes of a GPU's memory that torch can still hand out."""
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
