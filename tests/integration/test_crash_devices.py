"""kill -9 of a device before and after every commit of a whole life, with what only happens now and then: lost sessions
and retry requests, post-quantum answers, a rollback, an account reset, read marks, an export taken in, housekeeping.
Real processes, real stores, a clock of the test.

How `SecureClient` orders commits and the network is the matter of test_crash_client.py.
"""

import inspect
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import e2ee
from e2ee import intake
from e2ee.account_reset import AccountResets
from e2ee.backup import Backup
from e2ee.delivery import Delivery
from e2ee.messenger import Messenger
from e2ee.outbox import Outbox
from e2ee.registration import Registration

_ROOT = Path(e2ee.__file__).parents[1]


def committing_methods() -> set[str]:
    """What opens a transaction to write in Messenger, and in what is reached through it without a name of its own."""
    owners = Messenger, AccountResets, Backup, Delivery, Outbox, Registration, intake
    members = [member for owner in owners for member in vars(owner).values()]
    functions = [inspect.unwrap(getattr(each, "__func__", each)) for each in members]
    return {each.__name__ for each in functions if inspect.isfunction(each) and "write" in each.__code__.co_names}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_device_killed_around_any_commit_of_a_whole_life_loses_repeats_and_reuses_nothing() -> None:
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as directory:
        told = subprocess.run(
            [sys.executable, str(_ROOT / "tests" / "crash_devices.py"), directory],
            env={**os.environ, "PYTHONPATH": str(_ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
    assert told.returncode == 0, told.stderr
    deaths = json.loads(told.stdout)
    committing = committing_methods()
    assert len(committing) > 20
    assert deaths.keys() == {f"{name} {moment}" for name in committing for moment in ("before", "after")}
    assert deaths["tend before"] > 20
