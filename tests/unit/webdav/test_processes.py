"""The gateway as people start it: `python -m webdav` with real worker processes, and a master that knows only users."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import psutil
import pytest

from helenite.core.pb import master_pb2, master_pb2_grpc
from tests.support.ports import free_port
from tests.support.raw_http import Client, NoAnswerError

PATIENCE_S = 20.0


class Admin(master_pb2_grpc.AdminServicer):
    def ListUsers(self, request: Any, context: Any) -> master_pb2.UsersReply:  # noqa: N802
        return master_pb2.UsersReply()


class Cluster(master_pb2_grpc.ClusterServicer):
    def __init__(self) -> None:
        self.announced: list[Any] = []

    def Announce(self, request: Any, context: Any) -> master_pb2.ServersReply:  # noqa: N802
        self.announced.append(request)
        return master_pb2.ServersReply()


@pytest.fixture
def master() -> Iterator[tuple[str, Cluster]]:
    server = grpc.server(ThreadPoolExecutor(4))
    cluster = Cluster()
    master_pb2_grpc.add_AdminServicer_to_server(Admin(), server)
    master_pb2_grpc.add_ClusterServicer_to_server(cluster, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}", cluster
    server.stop(0).wait()


def wait_until(holds: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + PATIENCE_S
    pause = threading.Event()
    while not (found := holds()):
        assert time.monotonic() < deadline, f"in vain: {what}"
        pause.wait(0.05)
    return found


@contextlib.contextmanager
def gateway(**variables: str) -> Iterator[subprocess.Popen[str]]:
    environment = os.environ | {"HELENITE_WEBDAV_WORKERS": "2", "HELENITE_DEADLINE_S": "2", **variables}
    process = subprocess.Popen(
        [sys.executable, "-m", "webdav"], env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        children = psutil.Process(process.pid).children() if process.poll() is None else []
        process.terminate()
        with process:
            process.communicate(timeout=PATIENCE_S)
        assert psutil.wait_procs(children, timeout=PATIENCE_S)[1] == []


def answers(client: Client) -> bool:
    try:
        return client("OPTIONS", "*").status == 200
    except (OSError, NoAnswerError):
        return False


def test_workers_share_a_port_and_are_restarted(master: tuple[str, Cluster]) -> None:
    port = free_port()
    client = Client("127.0.0.1", port)
    with gateway(HELENITE_WEBDAV_LISTEN=f"127.0.0.1:{port}", HELENITE_MASTERS=master[0]) as parent:
        wait_until(lambda: answers(client), "a first answer")
        workers = psutil.Process(parent.pid).children()
        assert len(workers) == 2
        workers[0].kill()
        wait_until(
            lambda: len(now := psutil.Process(parent.pid).children()) == 2 and workers[0] not in now, "a restart"
        )
        wait_until(lambda: answers(client), "an answer after a worker's death")
        announced = wait_until(lambda: master[1].announced, "an announcement")
        assert {item.address for item in announced} == {f"127.0.0.1:{port}"}
        assert len({item.id for item in announced}) == 1
        assert {item.pid for item in announced} == {parent.pid}
        parent.send_signal(signal.SIGTERM)
        assert parent.wait(PATIENCE_S) == 0


def test_without_a_number_there_is_a_worker_for_each_core(master: tuple[str, Cluster]) -> None:
    variables = {"HELENITE_WEBDAV_LISTEN": f"127.0.0.1:{free_port()}", "HELENITE_MASTERS": master[0]}
    with gateway(**variables, HELENITE_WEBDAV_WORKERS="") as parent:
        wait_until(lambda: len(psutil.Process(parent.pid).children()) == os.cpu_count(), "all workers")


def test_the_parent_says_when_it_is_ready(master: tuple[str, Cluster]) -> None:
    ours, theirs = os.pipe()
    try:
        environment = os.environ | {
            "HELENITE_WEBDAV_LISTEN": "127.0.0.1:0",
            "HELENITE_MASTERS": master[0],
            "HELENITE_READY_FD": str(theirs),
        }
        process = subprocess.Popen([sys.executable, "-m", "webdav"], env=environment, pass_fds=(theirs,))
        assert os.read(ours, 16) == b"ready\n"
        process.terminate()
        assert process.wait(PATIENCE_S) == 0
    finally:
        os.close(ours)
        os.close(theirs)


def test_workers_do_not_outlive_their_parent(master: tuple[str, Cluster]) -> None:
    port = free_port()
    with gateway(HELENITE_WEBDAV_LISTEN=f"127.0.0.1:{port}", HELENITE_MASTERS=master[0]) as parent:
        wait_until(lambda: answers(Client("127.0.0.1", port)), "a first answer")
        workers = psutil.Process(parent.pid).children()
        parent.kill()
        assert psutil.wait_procs(workers, timeout=PATIENCE_S)[1] == []


def run_to_the_end(**variables: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "webdav"],
        env=os.environ | {"HELENITE_LOG_LEVEL": "error", **variables},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    return done.returncode, done.stderr


def test_a_port_that_is_taken_is_one_sentence() -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        status, said = run_to_the_end(HELENITE_WEBDAV_LISTEN=f"127.0.0.1:{port}")
    assert status == 2
    assert said.count("\n") == 1
    assert f"port {port}" in said


def test_without_users_the_world_is_not_let_in(master: tuple[str, Cluster]) -> None:
    status, said = run_to_the_end(HELENITE_WEBDAV_LISTEN=f"0.0.0.0:{free_port()}", HELENITE_MASTERS=master[0])
    assert status == 2
    assert said.count("\n") == 1
    assert "helenite user add" in said


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        *[("HELENITE_TLS_CERT", "/none.pem"), ("HELENITE_WEBDAV_LISTEN", "nonsense")],
        *[("HELENITE_WEBDAV_WORKERS", "many"), ("HELENITE_WEBDAV_WORKERS", "-1")],
    ],
)
def test_wrong_settings_are_one_sentence(variable: str, value: str) -> None:
    status, said = run_to_the_end(**{variable: value})
    assert (status, said.count("\n")) == (2, 1), said


def test_a_certificate_that_cannot_be_read_is_one_sentence(master: tuple[str, Cluster]) -> None:
    status, said = run_to_the_end(
        HELENITE_WEBDAV_LISTEN=f"127.0.0.1:{free_port()}",
        HELENITE_MASTERS=master[0],
        HELENITE_TLS_CERT="/none.pem",
        HELENITE_TLS_KEY="/none.pem",
        HELENITE_WEBDAV_WORKERS="1",
    )
    assert (status, said.count("\n")) == (2, 1), said


def test_the_parent_stays_small() -> None:
    code = "import sys, webdav.__main__; assert not {'grpc', 'wsgidav', 'cheroot', 'lxml'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=PATIENCE_S)


def test_a_supervised_gateway_ends_with_its_supervisor(master: tuple[str, Cluster]) -> None:
    supervisor = (
        "import os, subprocess, sys\n"
        "ours, theirs = os.pipe()\n"
        "os.environ |= {'HELENITE_SUPERVISED': '1', 'HELENITE_READY_FD': str(theirs)}\n"
        "child = subprocess.Popen([sys.executable, '-m', 'webdav'], pass_fds=(theirs,), start_new_session=True)\n"
        "os.read(ours, 16)\n"
        "print(child.pid, flush=True)\n"
        "os._exit(1)\n"
    )
    environment = os.environ | {"HELENITE_WEBDAV_LISTEN": "127.0.0.1:0", "HELENITE_MASTERS": master[0]}
    with subprocess.Popen([sys.executable, "-c", supervisor], env=environment, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        gateway_pid = int(process.stdout.readline())
    wait_until(lambda: not psutil.pid_exists(gateway_pid), "the gateway's end")
