"""`e2ee history`: what is kept is shown, paged and deleted; nothing is kept until somebody says so."""

import json
from pathlib import Path
from typing import Any

from tests.cli_processes import Desk, serving


def lines(out: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.splitlines()]


def test_past_messages_are_shown_once_somebody_asked_for_them_to_be_kept(tmp_path: Path) -> None:
    with serving(tmp_path) as url:
        desk = Desk(tmp_path, url)
        for user in ("alice", "bob"):
            desk.init(user)
        empty = desk.call("history", "--home", "alice")
        assert (empty.code, empty.out) == (0, "")
        assert "nothing is kept" in empty.err
        for user in ("alice", "bob"):
            kept = desk.call("history", "--keep", "forever", "--home", user)
            assert (kept.code, kept.remark) == (0, "messages are kept from now on")
        for text in ("one", "two"):
            assert desk.call("send", "bob", text, "--home", "alice").code == 0
        assert desk.call("receive", "--home", "bob").code == 0

        shown = lines(desk.call("history", "alice", "--json", "--home", "bob").out)
        assert [(each["author"], each["text"], each["state"]) for each in shown] == [
            ("alice", "one", "new"),
            ("alice", "two", "new"),
        ]
        earlier = desk.call("history", "alice", "--before", str(shown[1]["position"]), "--home", "bob")
        assert earlier.out.splitlines()[0].endswith("alice: one")
        assert desk.call("history", "bob", "--limit", "1", "--home", "alice").out.strip().endswith("alice to bob: two")
        assert desk.call("history", "--home", "bob").out == "alice, 2 unread\n"
        deleted = desk.call("history", "alice", "--delete", "--json", "--home", "bob")
        assert lines(deleted.out) == [{"deleted": 2}]
        assert desk.call("history", "alice", "--home", "bob").out == ""
    assert desk.call("history", "--keep", "sometimes", "--home", "bob").code == 2
