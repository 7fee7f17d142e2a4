"""The workers that a person asks for, and the Ray cluster that they run on: whether it is there before any work, and while it lasts."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import dataclass

from solversearch.errors import Halted, UserError

SOCKET = 107
"""Bytes that the name of a socket may have."""
PATIENCE = 10.0
"""Seconds in which somebody must listen at an address."""
ANSWERS = 30.0
"""Seconds in which a cluster must answer: most of them are those that a busy machine needs to start Python and Ray."""
GONE = 20.0
"""Seconds after which a head that nobody hears of is gone: after 60, Ray ends the process that it is in."""


@dataclass(frozen=True)
class Fleet:
    """The workers that a person asks for. gpus is the share of a GPU that each takes; limit the seconds that a candidate may take."""

    count: int = 1
    gpus: float = 0.0
    address: str | None = None
    limit: float = 600.0

    def __post_init__(self) -> None:
        for option, value, least in (("--workers", self.count, 1), ("--gpus-per-worker", self.gpus, 0), ("--time-limit", self.limit, 1)):
            if value < least:
                raise UserError(f"{option} {value}: write {least} or more")

    @property
    def remote(self) -> bool:
        """One worker that is not on a cluster is the driver itself."""
        return self.count > 1 or self.address is not None

    def check(self) -> None:
        """Before any work: whether Ray can be there. Raises `UserError`."""
        if self.address is not None:
            _check_listens(self.address)
            _check_answers(self.address)
        elif self.remote and len(os.fsencode(_socket())) > SOCKET:
            raise UserError(
                f"--workers: the temporary folder {_temporary()} is {len(os.fsencode(_socket())) - SOCKET} bytes too long for the names of "
                "Ray's sockets; set TMPDIR to a shorter one, such as /tmp"
            )


HERE = Fleet()


def _temporary() -> str:
    """Where Ray puts its sockets."""
    return os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"


def _socket() -> str:
    """A name as long as the longest of Ray's."""
    return f"{_temporary()}/ray/session_2026-01-01_00-00-00_000000_{os.getpid()}/sockets/plasma_store"


def _place(address: str) -> tuple[str, str]:
    """Host and port."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    return host.strip("[]"), port


def _check_listens(address: str) -> None:
    host, port = _place(address)
    if address == "auto":  # Ray itself looks for a cluster on this machine
        return
    if not host or not port.isdecimal():
        raise UserError(f"--ray-address {address}: write HOST:PORT, or auto")
    try:
        socket.create_connection((host, int(port)), PATIENCE).close()
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"--ray-address {address}: nobody listens there ({reason}); start a cluster with 'ray start --head'") from None


def _check_answers(address: str) -> None:
    """In a process of its own, for Ray waits minutes for what listens and is no cluster, and may end the process that it is in."""
    code = "import sys, ray; ray.init(sys.argv[1], log_to_driver=False, logging_level='ERROR')"
    late = False
    try:
        ended = subprocess.run([sys.executable, "-c", code, address], capture_output=True, timeout=ANSWERS, check=False)
        failed, said = ended.returncode, ended.stderr
    except subprocess.TimeoutExpired as error:
        late, failed, said = True, 1, error.stderr or b""
    told = said.decode(errors="replace").strip()
    if failed and ("InvalidAuthToken" in told or "AuthenticationError" in told):
        raise UserError(
            f"--ray-address {address}: the cluster's token is missing here, or another; set RAY_AUTH_MODE=token, and copy "
            "~/.ray/auth_token from the head"
        )
    if late:
        raise UserError(
            f"--ray-address {address}: no Ray cluster answers there in {ANSWERS:.0f} s; name the port of 'ray start --head', 6379 unless "
            "it was told another"
        )
    if failed:
        reason = (told or f"Ray ended with {failed}").splitlines()[-1]
        raise UserError(f"--ray-address {address}: {reason.rpartition('Error: ')[2]}")


class Head:
    """Of a cluster, at an address. Ray's own calls say nothing of it when it is gone."""

    def __init__(self, address: str) -> None:
        self.address, self.heard = address, time.monotonic()

    def wait(self) -> None:
        """Until it answers; asks once a second. Raises `Halted` where it is gone."""
        since = time.monotonic()
        while time.monotonic() > self.heard + 1:
            if self._answers():
                self.heard = time.monotonic()
            elif time.monotonic() > since + GONE:
                raise Halted(f"the head of the Ray cluster at {self.address} has not answered for {GONE:.0f} s; start it again")
            else:
                time.sleep(1)

    def _answers(self) -> bool:
        host, port = _place(self.address)
        try:
            socket.create_connection((host, int(port)), PATIENCE).close()
        except OSError:
            return False
        return True


@contextmanager
def cluster(cpus: int, address: str | None) -> Iterator[Head]:
    """Ray: that at an address, or one of its own with so many workers; raises `UserError` where there is none.

    Ray prints what befalls its processes to stdout, which is for results.
    """
    import ray

    with ExitStack() as leave:
        leave.enter_context(redirect_stdout(leave.enter_context(open(os.devnull, "w"))))
        if not ray.is_initialized():
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
            own = {"num_cpus": cpus, "include_dashboard": False} if address is None else {}
            try:
                ray.init(address or "local", log_to_driver=False, logging_level="ERROR", **own)
            except ConnectionError as error:
                raise UserError(f"--ray-address {address}: {' '.join(str(error).split())}") from None
            leave.callback(ray.shutdown)
        yield Head(address if address and address.startswith("ray://") else ray.get_runtime_context().gcs_address)
