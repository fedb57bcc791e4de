"""`e2ee verify`: the safety number with a contact, and what was decided about it. `e2ee contacts`: who there is.

Both work offline.

Owns: what is shown, which decision the options mean.
Does not know about: how numbers are made (e2ee.safety_number), what a decision changes (e2ee.trust).
"""

import contextlib
from argparse import Namespace
from pathlib import Path
from typing import Final

from e2ee.cli import qr
from e2ee.cli.failures import DONE
from e2ee.cli.online import LOCK_SECONDS, Call
from e2ee.cli.settings import UsageError, store_path
from e2ee.contact_book import ContactBook
from e2ee.messenger import Messenger
from e2ee.stores.records import Contact
from e2ee.stores.sqlite import SqliteStore
from e2ee.wire.identifiers import UserId

_GROUP: Final = 5
_PER_LINE: Final = 4
_DIGITS: Final = 60


def verify(call: Call) -> int:
    """Show, compare and record."""
    store = SqliteStore.open(store_path(call.home), passphrase=call.secret, wait=LOCK_SECONDS)
    with contextlib.closing(store):
        messenger = Messenger.open(store)
        user = UserId(call.arguments.user)
        book = messenger.contact_book
        _refuse_mistakes(messenger, user, call.arguments)
        _decide(book, user, call.arguments)
        if call.arguments.accept_change is not None:
            messenger.reconsider(user)
        if call.arguments.qr is not None:
            qr.to_file(book.qr_text(user), Path(call.arguments.qr))
        number = book.safety_number(user)  # says so if the user is no contact
        contact = messenger.contact(user)
        _show(call, number, contact, book)
    return DONE


def contacts(call: Call) -> int:
    """List the contacts, and how things stand with each."""
    store = SqliteStore.open(store_path(call.home), passphrase=call.secret, wait=LOCK_SECONDS)
    with contextlib.closing(store):
        messenger = Messenger.open(store)
        book = messenger.contact_book
        known = [(messenger.contact(user), book.is_verified(user)) for user in book.users()]
    for contact, is_verified in known:
        if contact is not None:
            call.printer.result(
                f"{contact.user_id}, {_state(contact, is_verified)}",
                user=contact.user_id,
                verified=is_verified,
                forked=contact.forked,
                changed=contact.changed is not None,
            )
    if not known:
        call.printer.remark("no contacts yet")
    return DONE


def _state(contact: Contact, is_verified: bool) -> str:
    if contact.changed is not None:
        return "the account key has changed"
    if contact.forked:
        return "the device lists contradict each other"
    if contact.verified and not is_verified:
        return "not verified: no recent list of their devices is known"
    return "verified" if is_verified else "not verified"


def _refuse_mistakes(messenger: Messenger, user: UserId, arguments: Namespace) -> None:
    """Say what was mistyped, before it is called hostile.

    Raises:
        UsageError: our own user, one who is no contact, or what cannot be a safety number.
    """
    if user == messenger.address.user_id:
        raise UsageError(f"{user} is this account itself: name the contact to compare with")
    if messenger.contact(user) is None:
        raise UsageError(f"{user} is no contact of this device: check the name, or exchange a message first")
    for number in (arguments.number, arguments.accept_change):
        digits = "".join((number or "").split())
        if number is not None and not _is_number(digits):
            raise UsageError(f"a safety number has {_DIGITS} digits, and this has {len(digits)} characters")


def _is_number(text: str) -> bool:
    return len(text) == _DIGITS and text.isascii() and text.isdecimal()


def _decide(book: ContactBook, user: UserId, arguments: Namespace) -> None:
    if arguments.scan is not None:
        book.compare(user, qr.from_file(Path(arguments.scan)))
    elif arguments.number is not None:
        book.compare(user, arguments.number)
    elif arguments.withdraw:
        book.withdraw(user)
    elif arguments.accept_change is not None:
        book.accept_change(user, arguments.accept_change)
    elif arguments.decline_change:
        book.decline_change(user)


def _show(call: Call, number: str, contact: Contact | None, book: ContactBook) -> None:
    user = UserId(call.arguments.user)
    change, is_verified = book.change(user), book.is_verified(user)
    state = "verified" if is_verified else "not verified"
    lines = [f"safety number with {user}, {state}:", "", in_groups(number), ""]
    if contact is not None and contact.verified and not is_verified:
        lines += [
            "the numbers were compared, but no recent list of their devices is known: send them something, and look "
            "again when one of their devices was online",
            "",
        ]
    if change is not None:
        lines += [f"the account key of {user} has changed; the safety number with the new key:", ""]
        lines += [in_groups(change.new_safety_number), ""]
    if not call.arguments.json and call.arguments.qr is None and not _decides(call.arguments):
        lines += [qr.on_terminal(book.qr_text(user)), ""]
    history = [
        {"decision": each.decision.name.lower(), "at": each.at, "account_key": each.key.raw.hex()}
        for each in book.decisions(user)
    ]
    call.printer.result(
        "\n".join(lines[:-1]),
        user=user,
        safety_number=number,
        verified=is_verified,
        qr=book.qr_text(user),
        new_safety_number=None if change is None else change.new_safety_number,
        decisions=history,
    )


def _decides(arguments: Namespace) -> bool:
    chosen = arguments.scan, arguments.number, arguments.accept_change
    return arguments.withdraw or arguments.decline_change or any(each is not None for each in chosen)


def in_groups(number: str) -> str:
    """Write 60 digits as people read them aloud: groups of five, four in a line."""
    groups = [number[at : at + _GROUP] for at in range(0, len(number), _GROUP)]
    rows = [groups[at : at + _PER_LINE] for at in range(0, len(groups), _PER_LINE)]
    return "\n".join("  " + " ".join(row) for row in rows)
