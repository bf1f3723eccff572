"""The system calls of Linux that Python 3.11 has no functions for."""

from __future__ import annotations

import ctypes
import os

CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 0x40000

ATTR_RDONLY = 0x1
ATTR_NOSUID = 0x2
ATTR_NODEV = 0x4

_MNT_DETACH = 0x2
_AT_FDCWD = -100
_AT_RECURSIVE = 0x8000
_SYS_MOUNT_SETATTR = 442  # the same on all architectures
_SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41, "ppc64le": 203, "riscv64": 41, "s390x": 217}
_SYS_CAPSET = {"x86_64": 126, "aarch64": 91, "ppc64le": 184, "riscv64": 91, "s390x": 185}
_PR_SET_PDEATHSIG = 1
_PR_CAPBSET_DROP = 24
_PR_SET_NO_NEW_PRIVS = 38
_CAPABILITY_VERSION = 0x20080522
_LAST_CAPABILITY = 63

_libc = ctypes.CDLL(None, use_errno=True)


def unshare(flags: int) -> None:
    """Leave namespaces for new ones."""
    _check(_libc.unshare(flags), "unshare")


def mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    """Mount a file system, or a folder or file of one at another place."""
    given = (source.encode(), target.encode(), kind.encode(), flags, options.encode())
    _check(_libc.mount(given[0], given[1], given[2], ctypes.c_ulong(flags), given[4]), target)


def restrict(target: str, attributes: int) -> None:
    """Set attributes of a mount and of all below it."""
    # struct mount_attr: set, clear, propagation, userns_fd
    wanted = (ctypes.c_uint64 * 4)(attributes, 0, 0, 0)
    result = _libc.syscall(
        ctypes.c_long(_SYS_MOUNT_SETATTR),
        ctypes.c_int(_AT_FDCWD),
        target.encode(),
        ctypes.c_uint(_AT_RECURSIVE),
        ctypes.byref(wanted),
        ctypes.c_size_t(ctypes.sizeof(wanted)),
    )
    _check(result, f"mount_setattr {target}")


def pivot_root(new: str, old: str) -> None:
    """Make a mount the root of this mount namespace, and put the old root into it."""
    result = _libc.syscall(ctypes.c_long(_number(_SYS_PIVOT_ROOT)), new.encode(), old.encode())
    _check(result, "pivot_root")


def unmount(target: str) -> None:
    """Take a mount away, as soon as nothing uses it."""
    _check(_libc.umount2(target.encode(), _MNT_DETACH), f"umount {target}")


def die_with_parent(signum: int) -> None:
    """Let the end of the parent send this process a signal."""
    _check(_libc.prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signum), 0, 0, 0), "prctl")


def give_up_privileges() -> None:
    """Give up every capability, and the way to get one by executing a file."""
    zero = ctypes.c_ulong(0)
    for capability in range(_LAST_CAPABILITY + 1):  # higher ones than the kernel knows fail
        _libc.prctl(_PR_CAPBSET_DROP, ctypes.c_ulong(capability), zero, zero, zero)
    one = ctypes.c_ulong(1)
    _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, one, zero, zero, zero), "prctl")
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0)
    none = (ctypes.c_uint32 * 6)()
    number = ctypes.c_long(_number(_SYS_CAPSET))
    _check(_libc.syscall(number, ctypes.byref(header), ctypes.byref(none)), "capset")


def _number(of_machine: dict[str, int]) -> int:
    machine = os.uname().machine
    if machine not in of_machine:
        raise OSError(f"system calls of {machine} are not known")
    return of_machine[machine]


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
