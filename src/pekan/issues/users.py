"""Steps that issues about auth have in common: users and roles made, auth turned on."""

from __future__ import annotations

from pekan.plan import Step

ROOT = {"name": "root", "password": "root-password"}
USER = {"name": "user", "password": "user-password"}
FLAGS = (("bcrypt-cost", "4"),)
"""Each login has every member compute a password's hash: at the default cost that takes longer than all the rest of such a script."""


def granted(role: str, key: str, range_end: str = "", *, kind: str = "READWRITE", name: str = "", times: int = 1) -> Step:
    """The role may read and write [key, range_end), or that one key; with `kind` READ or WRITE only that."""
    permission = {"permType": kind, "key": key, "range_end": range_end}
    return Step("RoleGrantPermission", {"name": role, "perm": permission}, name=name, times=times, answer="ok")


def made(user: dict[str, str], role: str) -> tuple[Step, ...]:
    """The user and the role are there, and the one has the other."""
    return (
        # Without options, 3.4.3 makes a user who has no password.
        Step("UserAdd", {**user, "options": {"no_password": False}}, answer="ok"),
        Step("RoleAdd", {"name": role}, answer="ok"),
        Step("UserGrantRole", {"user": user["name"], "role": role}, answer="ok"),
    )


def auth_on() -> tuple[Step, ...]:
    """Root is there, auth is on, and the lane speaks as root; so does whoever compares the members."""
    return (*made(ROOT, "root"), Step("AuthEnable", answer="ok"), Step("administrator", ROOT), Step("login", ROOT))
