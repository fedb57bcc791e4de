"""`e2ee history`: conversations and past messages, as far as they are kept. Works offline.

Owns: what is shown, which wish the options mean.
Does not know about: what is kept and in which order (e2ee.history).
"""

import contextlib
from typing import Final

from e2ee.cli.failures import DONE
from e2ee.cli.online import LOCK_SECONDS, Call
from e2ee.cli.settings import store_path
from e2ee.history_book import FOREVER, Conversation, HistoryBook
from e2ee.limits import DAY_MS
from e2ee.messenger import Messenger
from e2ee.stores.sqlite import SqliteStore
from e2ee.wire.identifiers import ConversationId, UserId

_NOTHING_KEPT: Final = "nothing is kept: 'e2ee history --keep forever', or a number of days, begins it"


def history(call: Call) -> int:
    """Change what is kept, if the options say so; then show it."""
    arguments = call.arguments
    store = SqliteStore.open(store_path(call.home), passphrase=call.secret, wait=LOCK_SECONDS)
    with contextlib.closing(store):
        book = Messenger.open(store).history
        if arguments.keep is not None:
            book.set_retention(arguments.keep)
            call.printer.remark(_kept(arguments.keep))
        if arguments.user is None:
            _show_conversations(call, book)
        elif arguments.delete:
            deleted = book.delete_conversation(UserId(arguments.user), ConversationId(arguments.conversation))
            call.printer.result(f"{deleted} messages deleted, on this device alone", deleted=deleted)
        else:
            _show_messages(call, book)
    return DONE


def _kept(milliseconds: int) -> str:
    if milliseconds == 0:
        return "what was kept is deleted, and nothing is kept from now on"
    if milliseconds == FOREVER:
        return "messages are kept from now on"
    return f"messages are kept from now on, for {milliseconds // DAY_MS} days"


def _show_messages(call: Call, book: HistoryBook) -> None:
    arguments = call.arguments
    user, conversation = UserId(arguments.user), ConversationId(arguments.conversation)
    entries = book.messages(user, conversation, before=arguments.before, limit=arguments.limit)
    for entry in entries:
        call.printer.past(entry)
    if not entries and book.retention() == 0:
        call.printer.remark(_NOTHING_KEPT)
    elif len(entries) == arguments.limit:
        call.printer.progress(f"there may be earlier ones: --before {entries[0].position}")


def _show_conversations(call: Call, book: HistoryBook) -> None:
    conversations = book.conversations()
    for each in conversations:
        call.printer.result(_line(each), user=each.peer, conversation=each.conversation, unread=each.unread)
    if not conversations and call.arguments.keep is None:
        call.printer.remark(_NOTHING_KEPT if book.retention() == 0 else "no messages yet")


def _line(each: Conversation) -> str:
    named = f" [{each.conversation}]" if each.conversation else ""
    return f"{each.peer}{named}" + (f", {each.unread} unread" if each.unread else "")
