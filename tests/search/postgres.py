"""A PostgreSQL server of the tests' own, where its programs are installed."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest


def _programs() -> Path:
    """Debian keeps them beside the path."""
    found = shutil.which("pg_ctl")
    folders = [Path(found).resolve().parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not folders:
        pytest.skip("PostgreSQL is not installed: there is no pg_ctl")
    return folders[-1]


def _user() -> dict[str, Any]:
    """The server refuses to be root."""
    if os.geteuid():
        return {}
    try:
        user = pwd.getpwnam("postgres")
    except KeyError:
        pytest.skip("PostgreSQL does not run as root, and there is no user postgres")
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


@contextmanager
def server() -> Iterator[str]:
    """The address of an empty database; the server listens on a socket in its own folder only."""
    pytest.importorskip("psycopg", reason="no driver for PostgreSQL: psycopg is not installed")
    programs, user = _programs(), _user()
    folder = Path(tempfile.mkdtemp(prefix="solversearch-postgres-"))
    if user:
        os.chown(folder, user["user"], user["group"])

    def call(program: str, *arguments: str) -> None:
        output = subprocess.DEVNULL  # the server would keep a pipe open
        subprocess.run([programs / program, "-D", folder / "data", *arguments], check=True, stdout=output, cwd=folder, **user)

    try:
        call("initdb", "-U", "tests", "-A", "trust", "--no-sync")
        call("pg_ctl", "-w", "-l", str(folder / "log"), "-o", f"-k {folder} -c listen_addresses='' -c fsync=off", "start")
        try:
            yield f"postgresql+psycopg://tests@/postgres?host={folder}"
        finally:
            call("pg_ctl", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
