"""A command as a plain user in a default container would run it: no capabilities, and the system calls refused that the engine refuses.

::

    python tests/stage/container.py COMMAND...        as root: user 1000; as anybody else: the same user

Made from what Docker documents of its default seccomp profile (docs.docker.com, "Seccomp security profiles for Docker") for a process
without capabilities on a kernel from 4.8 on: what it lists as blocked is refused with EPERM, namespaces by clone(2) as well, and clone3(2)
does not exist, so that the C library falls back to clone. ptrace(2) of own children, seccomp(2) and memfd_create(2) are allowed there. An
emulation: AppArmor, read-only /proc and /sys and absent devices are not part of it.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import struct
import subprocess
import sys

PLAIN_USER = 1000

# asm/unistd_64.h, by what they are for
REFUSED = {
    "kernel modules, kexec, reboot": (169, 174, 175, 176, 177, 178, 180, 246, 313, 320),
    "mounts and roots": (155, 161, 165, 166, 167, 168, 179, 428, 429, 430, 431, 432, 433, 442, 443),
    "namespaces": (170, 171, 272, 308),
    "time": (164, 227, 305),
    "memory of several nodes": (237, 238, 239, 256, 279),
    "keys": (248, 249, 250),
    "tracing and the processes of others": (298, 312, 321, 438, 440),
    "devices and the log of the kernel": (103, 153, 172, 173, 212),
    "files by handle, watching all of them": (300, 304),
    "old": (134, 136, 139, 156, 163, 236),
    "user faults, io_uring": (323, 425, 426, 427),
}
SYS_CLONE, SYS_CLONE3, SYS_PERSONALITY, SYS_SECCOMP = 56, 435, 135, 317
CLONE_NAMESPACES = 0x7E020000  # sched.h: CLONE_NEWNS, _NEWCGROUP, _NEWUTS, _NEWIPC, _NEWUSER, _NEWPID, _NEWNET
AUDIT_ARCH_X86_64 = 0xC000003E
ALLOW, ERRNO = 0x7FFF0000, 0x00050000
LOAD, EQUAL, ANY_BIT, RETURN = 0x20, 0x15, 0x45, 0x06  # linux/filter.h, bpf_common.h
NUMBER_AT, ARCHITECTURE_AT, FIRST_ARGUMENT_AT = 0, 4, 16  # struct seccomp_data
PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 24, 38
CAPABILITIES_MAX = 64
SECCOMP_SET_MODE_FILTER = 1


def instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("<HBBI", code, if_true, if_false, value)


def refusing(numbers: tuple[int, ...]) -> bytes:
    """A filter that answers these system calls with EPERM, and namespaces by clone too; clone3 with ENOSYS."""
    eperm = instruction(RETURN, ERRNO | errno.EPERM)
    program = [instruction(LOAD, ARCHITECTURE_AT), instruction(EQUAL, AUDIT_ARCH_X86_64, 1), eperm, instruction(LOAD, NUMBER_AT)]
    for number in numbers:
        program += [instruction(EQUAL, number, 0, 1), eperm]
    program += [instruction(EQUAL, SYS_CLONE3, 0, 1), instruction(RETURN, ERRNO | errno.ENOSYS)]
    program += [
        instruction(EQUAL, SYS_CLONE, 0, 3),
        instruction(LOAD, FIRST_ARGUMENT_AT),
        instruction(ANY_BIT, CLONE_NAMESPACES, 0, 1),
        eperm,
    ]
    program += [instruction(RETURN, ALLOW)]
    return b"".join(program)


def install(program: bytes) -> None:
    """For this process and all that it becomes. Raises `OSError`."""
    libc = ctypes.CDLL(None, use_errno=True)
    if os.geteuid() != 0 and libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_NO_NEW_PRIVS)")
    content = ctypes.create_string_buffer(program)
    header = ctypes.create_string_buffer(struct.pack("<HxxxxxxQ", len(program) // 8, ctypes.addressof(content)))
    if libc.syscall(SYS_SECCOMP, SECCOMP_SET_MODE_FILTER, 0, header):
        raise OSError(ctypes.get_errno(), "seccomp(SECCOMP_SET_MODE_FILTER)")


def become_plain() -> None:
    """Without the means to get capabilities back; a change from root to another user drops those that there are."""
    libc = ctypes.CDLL(None, use_errno=True)
    for number in range(CAPABILITIES_MAX):
        libc.prctl(PR_CAPBSET_DROP, number, 0, 0, 0)
    os.setgroups([])
    os.setresgid(PLAIN_USER, PLAIN_USER, PLAIN_USER)
    os.setresuid(PLAIN_USER, PLAIN_USER, PLAIN_USER)


def plain_python() -> list[str] | None:
    """How to run an interpreter that has what Pekan needs as that user, with `environment`; None where a plain user can read none."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for interpreter in filter(None, (sys.executable, shutil.which(version, path="/usr/bin:/usr/local/bin"))):
        command = [sys.executable, __file__, interpreter]
        tried = subprocess.run(
            [*command, "-c", "import grpc, pekan.hunt.run"], check=False, env=environment(), cwd="/", capture_output=True
        )
        if tried.returncode == 0:
            return command
    return None


def environment() -> dict[str, str]:
    """What such an interpreter needs to find the same modules as this one."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def main(command: list[str]) -> None:
    program = shutil.which(command[0])  # looked for while this interpreter's own library can be read
    if program is None:
        sys.exit(f"{command[0]}: not found")
    install(refusing(tuple(number for numbers in REFUSED.values() for number in numbers)))
    if os.geteuid() == 0:
        become_plain()
    os.execv(program, command)


if __name__ == "__main__":
    main(sys.argv[1:])
