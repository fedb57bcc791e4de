"""Four server processes on one PostgreSQL, 64 claimers at once, processes killed at random: no key twice.

`make test` runs a smaller size; `make soak` the one of which docs/operations.md gives the figures: 20,000 one-time
prekeys of 100 devices.
"""

import os
import time
from collections import Counter
from pathlib import Path
from random import Random

import pytest

from tests.claim_storm import Size, Storm, all_keys
from tests.databases import postgresql

SMALL = Size(users=6, devices=4, keys=20, claimers=64, kills=3)
FULL = Size(users=20, devices=5, keys=100, claimers=64, kills=20)
SOAKING = "E2EE_SOAK" in os.environ


@pytest.mark.timeout(900 if SOAKING else 120)
async def test_no_key_is_handed_out_twice_whichever_server_is_killed_and_killed_requests_get_their_keys(
    tmp_path: Path,
) -> None:
    size, seed = (FULL, Random().getrandbits(32)) if SOAKING else (SMALL, 20261126)
    print(f"seed {seed}, {size}")
    storm = Storm(postgresql().new_database(), tmp_path, size, seed)
    try:
        await storm.start()
        begun = time.monotonic()
        await storm.run(retire=size.users // 3)
        print(f"{len(storm.requests)} requests in {time.monotonic() - begun:.1f} s")
        await judge(storm)
    finally:
        await storm.close()


async def judge(storm: Storm) -> None:
    answered = [request for request in storm.requests if request.bundles is not None]
    lost = [request for request in storm.requests if request.bundles is None]
    repeated = [request for request in answered if request.killed]
    delivered = all_keys(answered)
    spent = await storm.spent()

    assert storm.kills == storm.size.kills
    assert repeated, "the kills hit requests that were repeated"
    assert lost, "the kills hit requests that were given up"
    assert max(Counter(key for key, _ in delivered).values()) == 1, "handed out twice"
    # Whom a key went to is what the database says, so nobody else can get it later.
    assert {key: request.request_id for key, request in delivered}.items() <= spent.items()
    # What is spent and went to nobody belongs to a request that was killed and not repeated: one key of each kind of
    # each device at most. Or its device has left, and all that it had is withdrawn.
    went = {key for key, _ in delivered}
    nowhere = {key: request_id for key, request_id in spent.items() if key not in went}
    left = {key for key in nowhere if key.address in storm.retired}
    ours = [(key.address, key.kind, request_id) for key, request_id in nowhere.items() if key not in left]
    assert {request_id for _, _, request_id in ours} <= {request.request_id for request in lost}
    assert ours, "keys were spent for requests that got no answer"
    assert len(set(ours)) == len(ours), "more than one key of a device and kind is spent for a killed request"
    for request in answered:
        of_device = Counter((key.address, key.kind) for key in request.one_time_keys())
        assert max(of_device.values(), default=1) == 1, "one key of each kind of each device"
        gone = {
            each.address for each in request.bundles or () if request.asked_at > storm.retired.get(each.address, 1e12)
        }
        assert not gone, "served after its device had left"

    # Asked again, at any server: the same, but for devices that have left meanwhile.
    for request in [*repeated, *answered[:50]]:
        before = [bundle for bundle in request.bundles or () if bundle.address not in storm.retired]
        while not await storm.ask(request):
            pass
        assert request.bundles == before
    # And now the ones that had been given up: they get what was spent for them.
    waiting = {key: request_id for key, request_id in nowhere.items() if key not in left}
    for request in lost:
        while not await storm.ask(request):
            pass
        its_keys = {key for key, request_id in waiting.items() if request_id == request.request_id}
        assert its_keys <= set(request.one_time_keys())
    print(
        f"{len(delivered)} keys of {storm.size.one_time_keys} delivered to {len(answered)} requests; "
        f"{storm.kills} kills and clients that hung up left "
        f"{sum(request.killed for request in storm.requests)} attempts unanswered: "
        f"{len(repeated)} requests were repeated and got theirs, "
        f"{len(lost)} given up, for which {len(ours)} keys were spent; "
        f"{len(storm.retired)} devices left with {len(left)} keys"
    )
