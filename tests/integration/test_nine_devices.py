"""Three people with three devices each, every device and the server in a process of its own.

Whatever anybody says reaches the store of every device of both people exactly once, and nobody else's, while a device
joins in the middle of the conversation and another one is retired in the middle of it.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.device_handle import Device
from tests.server_process import ServerProcess

pytestmark = pytest.mark.timeout(240)  # ten processes on whatever cores there are

USERS = ("alice", "bob", "carol")


class Stage:
    """The server, the devices, and everything that was said."""

    def __init__(self, directory: Path) -> None:
        self.server = ServerProcess(directory)
        self.devices = [Device(user, f"{user}-{number}", directory) for user in USERS for number in (1, 2, 3)]
        self.said: list[tuple[str, str, str]] = []
        """Author's user, recipient, text."""

    def __getitem__(self, name: str) -> Device:
        return next(device for device in self.devices if device.name == name)

    def open(self, device: Device, *, by: Device | None = None) -> None:
        """Bring a device online; a further one of its user is let in `by` another."""
        token = self.server.token(device.user)
        given = {"user": device.user, "store": str(device.store), "server": self.server.url, "token": token}
        device.tell("open", **given, link=by is not None)
        if by is not None:
            by.ask("approve", code=device.hear()["code"])
        device.device_id = device.hear()["device"]

    def talk(self, name: str, speakers: Sequence[Device], *, meanwhile: Callable[[], object] = lambda: None) -> None:
        """Let every speaker say two things to each of the other people, all at the same time, and do something else
        while they do.
        """
        for device in speakers:
            lines = [
                (peer, f"{name} {device.name} {peer} {n}") for n in (1, 2) for peer in USERS if peer != device.user
            ]
            self.said += [(device.user, peer, text) for peer, text in lines]
            device.tell("send", messages=lines)
        meanwhile()
        for device in speakers:
            device.hear()

    def texts_of(self, device: Device, *names: str) -> set[str]:
        """What was said by or to a device's user in some rounds."""
        concerned = {text for author, peer, text in self.said if device.user in (author, peer)}
        return {text for text in concerned if not names or text.split()[0] in names}

    def settle(self, devices: Sequence[Device], *names: str) -> None:
        """Wait until devices hold all that was said in some rounds."""
        for device in devices:
            device.tell("until", texts=sorted(self.texts_of(device, *names)))
        answers = {device.name: device.hear() for device in devices}
        assert {name: answer for name, answer in answers.items() if answer["missing"]} == {}


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    stage = Stage(tmp_path)
    stage.server.start()
    try:
        yield stage
    finally:
        for device in stage.devices:
            device.kill()
        stage.server.kill()


def test_every_message_reaches_every_device_of_both_people_exactly_once(stage: Stage) -> None:
    late, leaving = stage["bob-3"], stage["alice-3"]
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda user: stage.open(stage[f"{user}-1"]), USERS))
        list(pool.map(lambda user: stage.open(stage[f"{user}-2"], by=stage[f"{user}-1"]), USERS))
        list(pool.map(lambda user: stage.open(stage[f"{user}-3"], by=stage[f"{user}-2"]), ("alice", "carol")))
    present = [device for device in stage.devices if device is not late]
    letting_in, retiring = stage["bob-1"], stage["alice-1"]
    stage.talk(
        "first",
        [device for device in present if device is not letting_in],
        meanwhile=lambda: stage.open(late, by=letting_in),
    )
    stage.settle(present, "first")

    stage.talk("second", stage.devices)
    stage.settle(stage.devices, "second")

    staying = [device for device in stage.devices if device is not leaving]
    stage.talk(
        "third",
        [device for device in staying if device is not retiring],
        meanwhile=lambda: retiring.ask("retire", device=leaving.device_id),
    )
    stage.talk("fourth", staying)
    stage.settle(staying, "third", "fourth")

    shown = {device.name: Counter(device.ask("close")["shown"]) for device in stage.devices}
    for device in stage.devices:
        must = stage.texts_of(device)
        may = must
        if device is leaving:
            must, may = stage.texts_of(device, "first", "second"), stage.texts_of(device, "first", "second", "third")
        elif device is late:
            must = stage.texts_of(device, "second", "third", "fourth")
        kept = Counter(device.kept())
        assert must <= set(kept) <= may, device.name
        assert set(kept.values()) == {1}, device.name
        own = {text for text in kept if text.split()[1] == device.name}
        to_be_shown = Counter(set(kept) - own)
        if device is leaving:  # a client that is cut off shows nothing more of what its store has
            assert shown[device.name] <= to_be_shown, device.name
        else:
            assert shown[device.name] == to_be_shown, f"{device.name} was shown each once, but its own"
