"""What a container or a batch system lets this process hold: the memory limits of its control groups."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

_VERSION_2 = ("memory.max", "memory.current", "inactive_file")
_VERSION_1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
"""Files with the limit and what is used of it, and the line of ``memory.stat`` with what the kernel gives back."""


def room(groups: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Return the bytes left under the tightest limit; None where nothing bounds this process, or no Linux runs it.

    Beyond such a limit the kernel kills the process, however much memory the machine has (Linux kernel documentation,
    cgroup-v2 and cgroup-v1/memory). Pages of files that were read count as used, and are given back when needed.

    Args:
        groups: Lists the groups of this process, a line each: ``4:memory:/path``, in version 2 ``0::/path``.
        root: Where they are mounted.
    """
    left = [_left(folder, names) for folder, names in _folders(groups, root)]
    return min((bytes_left for bytes_left in left if bytes_left is not None), default=None)


def _folders(groups: Path, root: Path) -> Iterator[tuple[Path, tuple[str, str, str]]]:
    try:
        lines = groups.read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        mount, names = (root / "memory", _VERSION_1) if controllers else (root, _VERSION_2)
        folder = mount / path.lstrip("/")
        # Groups above bound it too; inside a container its own is the root of the mount, whatever the path says.
        for above in (folder, *folder.parents):
            if above == mount or mount in above.parents:
                yield above, names


def _left(folder: Path, names: tuple[str, str, str]) -> int | None:
    limit, used, given_back = names
    try:
        bound = (folder / limit).read_text(encoding="utf-8").strip()
        if bound == "max":
            return None
        lines = (folder / "memory.stat").read_text(encoding="utf-8").splitlines()
        cached = dict(line.split() for line in lines).get(given_back, 0)
        return int(bound) - int((folder / used).read_text(encoding="utf-8")) + int(cached)
    except (OSError, ValueError):
        return None
