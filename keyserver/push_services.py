"""The push services that the settings name.

Owns: reading their keys, and telling what is wrong with them.
Does not know about: when devices are woken (transport_adapters.server.push.gateway), where (service/push.py).
"""

import json
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from keyserver.auth import Clock
from keyserver.settings import Settings
from transport_adapters.server.push.endpoints import KNOWN_HOSTS, is_allowed
from transport_adapters.server.push.ports import Provider, PushKind


def endpoint_rule(settings: Settings) -> Callable[[str], bool]:
    """Return what says whether the server speaks to an endpoint of Web Push."""
    hosts = (*KNOWN_HOSTS, *settings.push_hosts)
    return lambda url: is_allowed(url, hosts)


def make_providers(settings: Settings, now: Clock) -> tuple[dict[PushKind, Provider], bytes]:
    """Make the push services that the settings name; and the key that browsers subscribe with, if there is one.

    Raises:
        ValueError: a file cannot be read, or holds not what it should; the text names the setting.
        ImportError: the extra `push` is not installed.
    """
    providers: dict[PushKind, Provider] = {}
    vapid = b""
    # Imported where they are wanted: they need an extra.
    if settings.vapid_key_file is not None and settings.vapid_subject is not None:
        from transport_adapters.server.push.web import WebPush

        with _reading("E2EE_PUSH_CA_FILE"):
            trust = _trust(settings)
        with _reading("E2EE_VAPID_KEY_FILE"):
            key = settings.vapid_key_file.read_bytes()
            web = WebPush(key, settings.vapid_subject, now, may_speak_to=endpoint_rule(settings), verify=trust)
        providers[PushKind.WEB], vapid = web, web.public_key
    if settings.fcm_account_file is not None:
        from transport_adapters.server.push.fcm import Fcm

        with _reading("E2EE_FCM_ACCOUNT_FILE"):
            providers[PushKind.FCM] = Fcm(json.loads(settings.fcm_account_file.read_text()), now)
    if settings.apns_key_file is not None:
        from transport_adapters.server.push.apns import PRODUCTION, SANDBOX, Apns

        identity, topic = (settings.apns_key_id or "", settings.apns_team_id or ""), settings.apns_topic or ""
        url = SANDBOX if settings.apns_sandbox else PRODUCTION
        with _reading("E2EE_APNS_KEY_FILE"):
            providers[PushKind.APNS] = Apns(settings.apns_key_file.read_bytes(), identity, topic, now, url=url)
    return providers, vapid


def _trust(settings: Settings) -> ssl.SSLContext | bool:
    if settings.push_ca_file is None:
        return True
    import certifi

    trust = ssl.create_default_context(cafile=certifi.where())
    trust.load_verify_locations(settings.push_ca_file)
    return trust


@contextmanager
def _reading(setting: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ValueError(f"{setting}: the file cannot be read: {error.strerror or type(error).__name__}") from None
    except (ValueError, KeyError, TypeError) as error:
        # The type only: a text may repeat what stands in the file.
        raise ValueError(f"{setting}: the file does not hold such a key ({type(error).__name__})") from None
