"""The devices' accounts at an MQTT broker: Mosquitto, through its dynamic-security plugin.

Owns: topics and account names; which topics an account may use; making, ending accounts.
Does not know about: device tokens, connections, who asks.

A device's account has a literal rule for each of its three topics, no pattern, and no default lets anything else
through. Its client id is fixed, so it has one session. Ending an account ends its session at once.

An account's name is a hash of the device's address, so that topics and the broker's logs name nobody. Its password
follows from a secret of the server: asking again changes nothing at the broker, which writes its file on every change.
"""

import asyncio
import hashlib
import hmac
import itertools
import json
from typing import Final, NamedTuple, final

from e2ee.wire.identifiers import DeviceAddress
from transport_adapters.mqtt_session import Account, Message, MqttSession

BUCKETS: Final = 16
RESPONSES: Final = "$CONTROL/dynamic-security/v1/response"
_REQUESTS: Final = "$CONTROL/dynamic-security/v1"
_TIMEOUT: Final = 5.0
_HARMLESS: Final = ("already exists", "not found", "already in")
"""In the plugin's answers: what was wanted is so already."""


class DeviceTopics(NamedTuple):
    """One device at the broker: its account's name, and its topics."""

    name: str
    up: str
    down: str
    news: str


@final
class Topics:
    """All topics of one relay begin with a prefix, so that a broker may serve others as well."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix

    def of(self, address: DeviceAddress) -> DeviceTopics:
        """Name a device's topics. The name is 32 hex digits; the first of them is the bucket."""
        name = hashlib.sha256(b"E2EE/1 mqtt account" + str(address).encode()).hexdigest()[:32]
        bucket = int(name[0], BUCKETS)
        return DeviceTopics(name, f"{self._prefix}/up/{bucket}/{name}", self.down(name), self.news(bucket))

    def down(self, name: str) -> str:
        """The topic to a device."""
        return f"{self._prefix}/down/{name}"

    def news(self, bucket: int) -> str:
        """The topic to all devices of a bucket."""
        return f"{self._prefix}/news/{bucket}"

    def ups(self, bucket: int) -> str:
        """A filter for what all devices of a bucket say."""
        return f"{self._prefix}/up/{bucket}/+"

    def bridge_rules(self) -> list[dict[str, object]]:
        """What the bridge may do, besides administering accounts."""
        sent = [f"{self._prefix}/{kind}/+" for kind in ("down", "news")]
        heard = [(kind, f"{self._prefix}/up/#") for kind in ("publishClientReceive", "subscribePattern")]
        return [_rule("publishClientSend", each) for each in sent] + [_rule(*each) for each in heard]

    @property
    def bridge_role(self) -> str:
        """The name of the role that these rules make."""
        return f"{self._prefix}-bridge"


@final
class MosquittoAccounts:
    """Speaks to the plugin over the bridge's session, which has to be an administrator's."""

    def __init__(self, session: MqttSession, topics: Topics, secret: bytes) -> None:
        self._session = session
        self._topics = topics
        self._secret = secret
        self._numbers = itertools.count()
        self._asked: dict[str, asyncio.Future[list[dict[str, object]]]] = {}

    async def prepare(self, username: str) -> None:
        """Give the bridge its role, and take everything from everybody else by default.

        Raises:
            OSError: the plugin refused; or the role was new, and the broker has ended the session: connect again.
        """
        role = self._topics.bridge_role
        (answer,) = await self._ask({"command": "getClient", "username": username})
        if role in _roles(answer):
            return
        kinds = "publishClientSend", "publishClientReceive", "subscribe", "unsubscribe"
        await self._ask(
            {"command": "setDefaultACLAccess", "acls": [{"acltype": kind, "allow": False} for kind in kinds]},
            {"command": "createRole", "rolename": role, "acls": self._topics.bridge_rules()},
            {"command": "addClientRole", "username": username, "rolename": role},
        )

    def account(self, name: str) -> Account:
        """The account of a device, whether or not there is one yet."""
        return Account(name, name, hmac.digest(self._secret, name.encode(), "sha256").hex())

    async def grant(self, device: DeviceTopics, *, anew: bool) -> None:
        """Make the device's account, if there is none. `anew`: what there is did not serve.

        Raises:
            OSError: the plugin refused, or did not answer.
        """
        if anew:
            await self.revoke(device.name)
        account = self.account(device.name)
        rules = [_rule("publishClientSend", device.up)]
        for topic in (device.down, device.news):
            rules += [_rule("publishClientReceive", topic), _rule("subscribeLiteral", topic)]
        await self._ask(
            {"command": "createRole", "rolename": f"device-{device.name}", "acls": rules},
            {
                "command": "createClient",
                "username": account.username,
                "clientid": account.client_id,
                "password": account.password,
                "roles": [{"rolename": f"device-{device.name}"}],
            },
        )

    async def revoke(self, name: str) -> None:
        """End the device's account, and with it the session.

        Raises:
            OSError: the plugin refused, or did not answer.
        """
        await self._ask(
            {"command": "deleteClient", "username": name}, {"command": "deleteRole", "rolename": f"device-{name}"}
        )

    def take(self, message: Message) -> None:
        """Take the plugin's answer."""
        try:
            responses = json.loads(message.payload)["responses"]
            asked = self._asked.pop(responses[0]["correlationData"], None)
        except (ValueError, LookupError, TypeError):
            return
        if asked is not None and not asked.done():
            asked.set_result(responses)

    async def _ask(self, *commands: dict[str, object]) -> list[dict[str, object]]:
        number = str(next(self._numbers))
        asked = self._asked[number] = asyncio.get_running_loop().create_future()
        request = {"commands": [command | {"correlationData": number} for command in commands]}
        try:
            async with asyncio.timeout(_TIMEOUT):
                await self._session.publish(_REQUESTS, json.dumps(request).encode())
                responses: list[dict[str, object]] = await asked
        finally:
            self._asked.pop(number, None)
        for response in responses:
            error = str(response.get("error", ""))
            if error and not any(each in error for each in _HARMLESS):
                raise OSError(f"the broker refuses {response.get('command')}: {error}")
        return responses


def _roles(answer: object) -> list[object]:
    """Name the roles of the account that was asked for."""
    for name in ("data", "client", "roles"):
        answer = answer.get(name) if isinstance(answer, dict) else None
    return [each.get("rolename") for each in answer if isinstance(each, dict)] if isinstance(answer, list) else []


def _rule(kind: str, topic: str) -> dict[str, object]:
    return {"acltype": kind, "topic": topic, "allow": True}
