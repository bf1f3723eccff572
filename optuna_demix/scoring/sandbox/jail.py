"""A root of its own for the sandbox: libraries to read, and nothing else of the machine.

After bubblewrap (https://github.com/containers/bubblewrap), which few clusters have installed.
Run by root it needs no user namespaces, run by others those that a user may make.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable
from pathlib import Path

from optuna_demix.scoring.sandbox import kernel

_SYSTEM = (
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/nix/store",
    "/gnu/store",
)
_FILES = ("/etc/ld.so.cache", "/etc/localtime", "/etc/alternatives")
_DEVICES = ("null", "zero", "full", "random", "urandom")
_ROOM = "size=16m,mode=755"
_KILL_FIRST = "1000"  # of all processes, where the machine has no memory left


def enter(root: str, visible: Iterable[str]) -> None:
    """Leave the machine: the caller returns as process 1 of namespaces of its own.

    The process that called stays outside and ends with the one that returns.

    Args:
        root: An empty folder.
        visible: Folders that can be read inside, beside the system's libraries.

    Raises:
        OSError: If the platform does not allow it.
    """
    Path("/proc/self/oom_score_adj").write_text(_KILL_FIRST)
    spaces = (
        kernel.CLONE_NEWNS
        | kernel.CLONE_NEWNET
        | kernel.CLONE_NEWPID
        | kernel.CLONE_NEWIPC
        | kernel.CLONE_NEWUTS
    )
    user, group = os.geteuid(), os.getegid()
    if user == 0:
        kernel.unshare(spaces)
    else:
        kernel.unshare(spaces | kernel.CLONE_NEWUSER)
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    _change_root(root, visible)
    child = os.fork()
    if child:
        for number in range(3):  # the pipes are the child's
            os.close(number)
        _, status = os.waitpid(child, 0)
        os._exit(os.waitstatus_to_exitcode(status) & 0xFF)
    kernel.die_with_parent(signal.SIGKILL)


def _change_root(root: str, visible: Iterable[str]) -> None:
    kernel.mount("none", "/", "none", kernel.MS_REC | kernel.MS_PRIVATE)
    kernel.mount("sandbox", root, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, _ROOM)
    there: list[str] = []
    for path in _SYSTEM:
        if os.path.islink(path):
            os.symlink(os.readlink(path), root + path)
            there.append(path)  # nothing is put behind a link, which may lead outside
        elif os.path.isdir(path):
            _show(path, root, there)
    for path in (*_FILES, *visible):
        for form in dict.fromkeys([os.path.abspath(path), os.path.realpath(path)]):
            if os.path.exists(form):
                _show(form, root, there)
    for device in _DEVICES:
        _bind(f"/dev/{device}", f"{root}/dev/{device}", kernel.ATTR_NOSUID)
    for folder in ("box", "tmp", "dev/shm", ".machine"):
        os.makedirs(f"{root}/{folder}", mode=0o755, exist_ok=True)
    kernel.pivot_root(root, f"{root}/.machine")
    os.chdir("/")
    kernel.unmount("/.machine")
    os.rmdir("/.machine")
    kernel.restrict("/", kernel.ATTR_RDONLY | kernel.ATTR_NOSUID)


def _show(path: str, root: str, there: list[str]) -> None:
    """Show a folder or file at the same place inside, to be read only."""
    if any(path == known or path.startswith(known + "/") for known in there):
        return
    attributes = kernel.ATTR_RDONLY | kernel.ATTR_NOSUID | kernel.ATTR_NODEV
    _bind(path, root + path, attributes)
    there.append(path)


def _bind(source: str, target: str, attributes: int) -> None:
    if os.path.isdir(source):
        os.makedirs(target, mode=0o755, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), mode=0o755, exist_ok=True)
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o444))
    kernel.mount(source, target, "none", kernel.MS_BIND | kernel.MS_REC)
    kernel.restrict(target, attributes)
