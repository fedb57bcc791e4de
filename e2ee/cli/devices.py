"""`e2ee devices`: which devices the account has (works offline); `e2ee devices retire` and `e2ee devices lost`.

Owns: how a device is named on the command line.
Does not know about: what a list may say (e2ee.own_devices).
"""

import asyncio
import contextlib
from collections.abc import Sequence

from e2ee.cli.failures import DONE
from e2ee.cli.online import LOCK_SECONDS, Call, deadline_in, online
from e2ee.cli.settings import UsageError, store_path
from e2ee.messenger import Messenger
from e2ee.stores.sqlite import SqliteStore
from e2ee.wire.identifiers import DeviceId


def devices(call: Call) -> int:
    """List the devices, or retire one."""
    match call.arguments.action:
        case "retire":
            return asyncio.run(_retire(call))
        case "lost":
            if not call.arguments.yes:
                raise UsageError(
                    "this gives the account a new key: all other devices are out, and every contact has to accept it. "
                    "If that is meant, add --yes"
                )
            return asyncio.run(_reset(call))
        case _:
            return _list(call)


def _list(call: Call) -> int:
    store = SqliteStore.open(store_path(call.home), passphrase=call.secret, wait=LOCK_SECONDS)
    with contextlib.closing(store):
        messenger = Messenger.open(store)
        newest, ours = messenger.own_devices.newest_list().content, messenger.address.device_id
    rows = [(each.device_id, each.device_id == ours) for each in newest.devices]
    lines = [f"devices of {newest.user_id}, list {newest.seq}:"]
    lines += [f"  {device_id}{'  (this one)' if is_ours else ''}" for device_id, is_ours in rows]
    if not any(is_ours for _, is_ours in rows):
        lines.append(f"this one, {ours}, is not among them: it was retired, or never let in")
    call.printer.result(
        "\n".join(lines),
        user=newest.user_id,
        list=newest.seq,
        devices=[{"device": str(device_id), "this": is_ours} for device_id, is_ours in rows],
    )
    return DONE


async def _retire(call: Call) -> int:
    deadline = deadline_in(call.arguments.timeout)
    async with online(call) as line:
        await line.until(line.client.online(), deadline, "answer")
        ours = line.client.address.device_id
        device_id = _named(call.arguments.device, await line.client.devices.listed())
        if device_id == ours:
            raise UsageError("this is the device itself: retire it on another one")
        await line.until(line.client.devices.retire(device_id), deadline, "take the new device list")
        left = await line.client.devices.listed()
    call.printer.result(
        f"{device_id} is retired: nothing is sent to it any more, and it cannot log in",
        retired=str(device_id),
        devices=[str(each) for each in left],
    )
    return DONE


async def _reset(call: Call) -> int:
    deadline = deadline_in(call.arguments.timeout)
    async with online(call) as line:
        await line.until(line.client.online(), deadline, "answer")
        before = await line.client.devices.listed()
        await line.until(line.client.devices.reset_account(), deadline, "take the new account key")
        ours = line.client.address.device_id
        key = line.client.messenger.account.party.account_key
    gone = [str(each) for each in before if each != ours]
    call.printer.result(
        f"{call.settings.user} has a new account key, which only this device holds; {len(gone)} others are out. "
        "Compare safety numbers with your contacts again",
        user=call.settings.user,
        account_key=key.raw.hex(),
        removed=gone,
        devices=[str(ours)],
    )
    return DONE


def _named(text: str, listed: Sequence[DeviceId]) -> DeviceId:
    """Return the one listed device whose id begins like this."""
    found = [each for each in listed if str(each).startswith(text.lower())]
    if len(found) != 1:
        raise UsageError(f"{len(found)} devices have an id that begins with {text!r}: see 'e2ee devices'")
    return found[0]
