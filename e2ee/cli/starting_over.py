"""`e2ee reset-account`: all devices are lost and there is no code: a new account key, on this device.

Owns: that nobody does so by mistake.
Does not know about: how lists follow one another (e2ee.account_reset).
"""

import argparse
import asyncio
from pathlib import Path

from e2ee.cli.credentials import passphrase, token_provider
from e2ee.cli.failures import DONE
from e2ee.cli.init import checked_settings, refuse_taken
from e2ee.cli.online import Line
from e2ee.cli.output import Printer
from e2ee.cli.settings import Settings, UsageError, home_directory, store_path
from transport_adapters.secure_client.recovering import NoAccountError


def reset_account(arguments: argparse.Namespace, printer: Printer) -> int:
    """Make this device the only one of an account under a new key."""
    if not arguments.yes:
        raise UsageError(
            "this gives the account a new key: all other devices are out, and every contact has to accept it. Who "
            "still has a device uses 'e2ee devices lost' on it, who has a recovery code 'e2ee recover'. If it is "
            "meant, add --yes"
        )
    home, settings = home_directory(arguments.home), checked_settings(arguments)
    secret = passphrase(arguments.passphrase_file)
    if refuse_taken(home, secret, arguments.user):
        raise UsageError(f"in {home} there is an unfinished device: 'e2ee init' with the same arguments finishes it")
    return asyncio.run(_start_over(home, settings, secret, printer, arguments.transport))


async def _start_over(home: Path, settings: Settings, secret: str, printer: Printer, transport: str) -> int:
    # Asked for once before anything is written: most mistakes show here.
    await token_provider(settings)()
    settings.save(home)
    try:
        async with await Line(settings, printer, transport).start_over(store_path(home), secret) as client:
            address, key = client.address, client.messenger.account.party.account_key
    except NoAccountError:
        raise UsageError(f"{settings.user} has no account at {settings.server}: 'e2ee init' makes one") from None
    printer.result(
        f"{address.user_id} has a new account key, which only this device, {address.device_id}, holds. "
        "Your contacts have to accept it: compare safety numbers with them again",
        user=address.user_id,
        device=str(address.device_id),
        server=settings.server,
        account_key=key.raw.hex(),
    )
    return DONE
