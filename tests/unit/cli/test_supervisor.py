import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from helenite.cli.cluster_dir import ClusterDir
from helenite.cli.supervisor import Program, Supervisor
from helenite.core.errors import ConfigurationError, UnavailableError

READY = "import os; os.write(int(os.environ['HELENITE_READY_FD']), b'ready'); "


def program(tmp_path: Path, name: str, code: str) -> Program:
    return Program(name, (sys.executable, "-c", code), dict(os.environ), tmp_path / f"{name}.log")


def wait_for(condition: Callable[[], bool], supervisor: Supervisor, timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        supervisor.check()
        assert time.monotonic() < deadline
        threading.Event().wait(0.02)


def test_a_child_that_dies_is_restarted(tmp_path: Path) -> None:
    supervisor = Supervisor()
    (child,) = supervisor.start(program(tmp_path, "a", READY + "import time; time.sleep(60)"))
    try:
        assert supervisor.wait_ready(10.0, threading.Event())
        first = child.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        wait_for(lambda: child.pid not in {None, first} and child.is_ready(), supervisor)
    finally:
        supervisor.stop()


def test_a_misconfigured_child_ends_the_start_with_its_last_words(tmp_path: Path) -> None:
    supervisor = Supervisor()
    supervisor.start(program(tmp_path, "a", "import sys; print('no such key'); sys.exit(2)"))
    with pytest.raises(ConfigurationError, match="a did not start: no such key"):
        supervisor.wait_ready(10.0, threading.Event())
    supervisor.stop()


def test_a_start_goes_on_without_a_child_that_others_can_replace(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is started again and again, and told of once."""
    sick = program(tmp_path, "sick", "import os, sys; print('the disk fails'); sys.exit(1)")
    well = program(tmp_path, "well", READY + "import time; time.sleep(60)")
    supervisor = Supervisor()
    child, _ = supervisor.start(*(replace(each, is_replaceable=True) for each in (sick, well)))
    try:
        assert supervisor.wait_ready(10.0, threading.Event())
        assert supervisor.waiting_for() == "sick"
        wait_for(lambda: sick.log_path.read_text().count("the disk fails") >= 3, supervisor)
        (told,) = [record.message for record in caplog.records if record.levelname == "WARNING"]
        assert told.startswith("sick ended with status 1 (the disk fails) and is started again")
        assert child.is_given_up()
    finally:
        supervisor.stop()


def test_a_stage_needs_one_child_at_least(tmp_path: Path) -> None:
    sick = program(tmp_path, "sick", "import sys; sys.exit(1)")
    supervisor = Supervisor()
    supervisor.start(replace(sick, is_replaceable=True))
    with pytest.raises(UnavailableError, match="sick"):
        supervisor.wait_ready(1.0, threading.Event())
    supervisor.stop()


def test_a_child_that_never_is_ready_is_named(tmp_path: Path) -> None:
    supervisor = Supervisor()
    supervisor.start(program(tmp_path, "slow", "import time; time.sleep(60)"))
    with pytest.raises(UnavailableError, match="slow"):
        supervisor.wait_ready(0.2, threading.Event())
    supervisor.stop()


def test_stages_stop_from_last_to_first(tmp_path: Path) -> None:
    code = (
        "import signal, sys, time\n"
        "def end(*_): open(sys.argv[1], 'a').write(sys.argv[2]); sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, end)\n" + READY + "\ntime.sleep(60)"
    )
    order = tmp_path / "order"
    supervisor = Supervisor()
    for name in "abc":
        made = program(tmp_path, name, code)
        supervisor.start(Program(name, (*made.command, str(order), name), made.environment, made.log_path))
    assert supervisor.wait_ready(10.0, threading.Event())
    supervisor.stop()
    assert order.read_text() == "cba"


def test_a_directory_serves_one_cluster_at_a_time(tmp_path: Path) -> None:
    place = ClusterDir(tmp_path / "data")
    place.create()
    with place.lock(), pytest.raises(ConfigurationError, match="already running"):
        ClusterDir(tmp_path / "data").lock()
    place.lock().close()
