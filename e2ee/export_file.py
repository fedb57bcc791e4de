"""An export with the history: the sealed account, and behind it the messages in chunks (protocol.md section 16.3).

    export = header || nonce 12 || sealed account (u32 length) || chunk ...      header as in recovery.py, version 2
    chunk  = AES-256-GCM(history key, number u64 || is last u32, messages, associated data = header)    (u32 length)

Owns: the file piece by piece, so that a history of any length takes the memory of a chunk or two.
Does not know about: stores, where the file is kept.

The history key is drawn for each export and sealed with the account, so that a chunk belongs to one export. Its number
and whether it is the last are its nonce: nothing can be left out, moved or cut off unnoticed. Whoever reads goes over
all of it once before anything is taken in.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from io import BytesIO
from typing import BinaryIO, Final, final

from e2ee.errors import AuthenticationError, MalformedMessageError, UnsupportedVersionError, WrongRecoveryCodeError
from e2ee.limits import MAX_EXPORTED_ACCOUNT, MAX_HISTORY_CHUNK, MAX_USER_ID
from e2ee.primitives import aead
from e2ee.primitives.rng import Rng
from e2ee.recovery import (
    ExportFile,
    Purpose,
    RecoveryCode,
    export_header,
    export_key,
    open_payload,
    read_export_header,
)
from e2ee.transfer import (
    HISTORY_SECTION,
    ExportedMessage,
    ExportPayload,
    HistoryKey,
    HistorySection,
    decode_messages,
)
from e2ee.wire.codec import Reader, Writer
from e2ee.wire.identifiers import UserId
from e2ee.wire.public_keys import AccountKey

_WITHOUT_HISTORY: Final = 1
_VERSION: Final = 2
_FILL: Final = MAX_HISTORY_CHUNK // 2
"""A chunk is closed once it holds so much; one more message always fits."""


def write_export(
    code: RecoveryCode,
    user_id: UserId,
    payload: ExportPayload,
    history: tuple[int, Iterable[Sequence[ExportedMessage]]],
    rng: Rng,
) -> Iterator[bytes]:
    """Yield an export in pieces. `history` is how long messages are kept, milliseconds, and messages in batches."""
    retention, batches = history
    section = HistorySection(HistoryKey(rng(HistoryKey.LENGTH)), retention)
    with_history = replace(payload, sections=((HISTORY_SECTION, section.encode()),))
    return seal_pieces(code, user_id, with_history, _chunks(batches), rng(aead.NONCE_LENGTH))


def seal_pieces(
    code: RecoveryCode, user_id: UserId, payload: ExportPayload, chunks: Iterable[tuple[bytes, bool]], nonce: bytes
) -> Iterator[bytes]:
    """Yield an export whose payload holds the section of the history. `chunks` says of each whether it is the last.

    The caller guarantees a nonce and a history key that were never used before.

    Raises:
        MalformedMessageError: the payload lacks the section.
    """
    section = _section_of(payload)
    header = export_header(_VERSION, user_id, payload.account_key_pair.public)
    sealed = aead.seal(export_key(code, Purpose.EXPORT), nonce, payload.encode(), header)
    yield Writer().raw(header).raw(nonce).bytes32(sealed).finish()
    for number, (messages, is_last) in enumerate(chunks):
        chunk = aead.seal(section.key.expose(), _chunk_nonce(number, is_last), messages, header)
        yield Writer().bytes32(chunk).finish()


@final
class ExportReader:
    """An export that is open for reading, with or without a history. The file can be sought in.

    Making one reads and opens the account, and verifies what it holds (`ExportFile.open`).
    """

    def __init__(self, file: BinaryIO | bytes, code: RecoveryCode, purpose: Purpose = Purpose.EXPORT) -> None:
        """Open the account of an export.

        Raises:
            WrongRecoveryCodeError: another code, or a file that was changed.
            InvalidSignatureError: the account's key, its list, or a contact's list does not fit.
            MalformedMessageError, UnsupportedVersionError, InvalidPublicKeyError: it is no export.
        """
        self._file = BytesIO(file) if isinstance(file, bytes) else file
        self._header = _read_header(self._file)
        version, self.user_id, self.account_key = read_export_header(Reader(self._header))
        history = None
        if version == _WITHOUT_HISTORY:
            rest = self._file.read(MAX_EXPORTED_ACCOUNT + 1)
            if len(rest) > MAX_EXPORTED_ACCOUNT:
                raise MalformedMessageError("an account is not that long")
            self.payload = ExportFile.decode(self._header + rest).open(code, purpose)
        elif version == _VERSION and purpose is Purpose.EXPORT:
            nonce = _take(self._file, aead.NONCE_LENGTH)
            sealed = _take_sized(self._file, MAX_EXPORTED_ACCOUNT)
            self.payload = open_payload(export_key(code, purpose), nonce, sealed, self._header)
            history = _section_of(self.payload)
        else:
            raise UnsupportedVersionError("export", version)
        self._history, self._begin = history, self._file.tell()

    @property
    def retention(self) -> int:
        """How long the exporting device kept messages, milliseconds; 0 if the export holds no history."""
        return self._history.retention if self._history else 0

    def check_history(self) -> int:
        """Authenticate and parse the history to its end; return how many messages it holds.

        Raises:
            WrongRecoveryCodeError: a chunk was changed, left out, moved, or is another export's.
            MalformedMessageError: the file ends too early, goes on behind its end, or does not decode.
        """
        return sum(len(messages) for messages in self.messages())

    def messages(self) -> Iterator[tuple[ExportedMessage, ...]]:
        """Yield the messages, a chunk at a time, in the order in which they were exported.

        Raises:
            See `check_history`, which comes first: what was yielded before an error is no whole history.
        """
        if self._history is None:
            return
        at, number, is_last = self._begin, 0, False
        while not is_last:
            self._file.seek(at)  # for each chunk: the same file may be taken in twice at once
            sealed = _take_sized(self._file, MAX_HISTORY_CHUNK + aead.TAG_LENGTH)
            at, is_last = self._file.tell(), not self._file.read(1)
            try:
                chunk = aead.unseal(self._history.key.expose(), _chunk_nonce(number, is_last), sealed, self._header)
            except AuthenticationError:
                raise WrongRecoveryCodeError from None
            yield decode_messages(chunk, self.user_id)
            number += 1


def owner_of(file: BinaryIO | bytes) -> tuple[UserId, AccountKey]:
    """Return whose export a file claims to be, without its code. The file is read from its beginning, and put back.

    Raises:
        MalformedMessageError, UnsupportedVersionError: it is no export.
    """
    stream = BytesIO(file) if isinstance(file, bytes) else file
    _, user_id, account_key = read_export_header(Reader(_read_header(stream)))
    stream.seek(0)
    return user_id, account_key


def _section_of(payload: ExportPayload) -> HistorySection:
    section = payload.section(HISTORY_SECTION)
    if section is None:
        raise MalformedMessageError("an export without the section of its history")
    return HistorySection.decode(section)


def _chunks(batches: Iterable[Sequence[ExportedMessage]]) -> Iterator[tuple[bytes, bool]]:
    """Yield the messages as chunks, one at least, and whether each is the last."""
    full: bytes | None = None
    writer, size = Writer(), 0
    for message in (each for batch in batches for each in batch):
        if size >= _FILL:
            if full is not None:
                yield full, False
            full = writer.finish()
            writer, size = Writer(), 0
        one = Writer()
        message.encode_into(one)
        encoded = one.finish()
        writer.raw(encoded)
        size += len(encoded)
    if full is not None:
        yield full, False
    yield writer.finish(), True


def _chunk_nonce(number: int, is_last: bool) -> bytes:
    return Writer().u64(number).u32(is_last).finish()


def _read_header(file: BinaryIO) -> bytes:
    """Return the header of a file, from its beginning."""
    file.seek(0)
    version = _take(file, 1)
    if version[0] not in (_WITHOUT_HISTORY, _VERSION):
        raise UnsupportedVersionError("export", version[0])
    length = _take(file, 1)
    if length[0] > MAX_USER_ID:
        raise MalformedMessageError("a user id is not that long")
    return version + length + _take(file, length[0] + AccountKey.LENGTH)


def _take_sized(file: BinaryIO, limit: int) -> bytes:
    length = int.from_bytes(_take(file, 4), "big")
    if not aead.TAG_LENGTH <= length <= limit:
        raise MalformedMessageError(f"a sealed part of {length} bytes")
    return _take(file, length)


def _take(file: BinaryIO, length: int) -> bytes:
    data = b""
    while len(data) < length:
        more = file.read(length - len(data))
        if not more:
            raise MalformedMessageError("an export that ends too early")
        data += more
    return data
