"""The file of `qwen-proxy export`: everything that is kept, a frame at a time, sealed under a passphrase.

| part | bytes |
|---|---|
| mark | `qwen-proxy export 1` and a line end |
| key | length (4, big-endian), then a vault document wrapped under the passphrase (scrypt): the file's own key |
| frames | length (4), then a sealed value of `state.vault`; the frame's number, from 0, is authenticated with it |

The first frame is a Beginning, the last an Ending; a file without that is cut off. Frames can't be left out, moved or
taken from another file.
"""

import struct
from collections.abc import Iterator
from typing import BinaryIO, Final

import msgspec
from msgspec import Struct

from qwen_proxy.ground.secret import Secret
from qwen_proxy.state.store import UsageCounts, UsageKey
from qwen_proxy.state.vault import Vault, VaultDocument, WrongSecret, new_document, unwrap, wrap

MARK: Final = b"qwen-proxy export 1\n"
NAME: Final = b"qwen-proxy export "
PLACE: Final = "export"
LEAST_PASSPHRASE_CHARS: Final = 8
MOST_KEY_BYTES: Final = 64 * 1024
MOST_FRAME_BYTES: Final = 64 * 1024**2
FRAME_BYTES: Final = 1024**2  # a frame is closed once it holds so much


class Beginning(Struct, frozen=True, tag="beginning", kw_only=True):
    """program: its version. made_at: Unix seconds. pepper: what the digests of client keys were made with."""

    program: str
    made_at: float
    pepper: bytes


class CarriedRecord(Struct, frozen=True, array_like=True):
    """value: as it was before it was sealed."""

    id: str
    value: bytes
    expires_at: float | None


class Records(Struct, frozen=True, tag="records"):
    kind: str
    records: tuple[CarriedRecord, ...]


class CarriedLine(Struct, frozen=True, array_like=True):
    at: float
    value: bytes


class Lines(Struct, frozen=True, tag="lines"):
    """Of one topic of the log, oldest first."""

    topic: str
    lines: tuple[CarriedLine, ...]


class CarriedUsage(Struct, frozen=True, array_like=True):
    key: UsageKey
    counts: UsageCounts


class Usage(Struct, frozen=True, tag="usage"):
    """By hour. What is only known by the day stands in the day's first hour."""

    rows: tuple[CarriedUsage, ...]


class Ending(Struct, frozen=True, tag="ending"):
    """How many there are in the file."""

    records: int
    lines: int
    usage: int


Frame = Beginning | Records | Lines | Usage | Ending

_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(Frame)


class BundleUnreadable(Exception):
    """The file is no export, the passphrase is another, or it was cut off or changed. A sentence without secrets."""


class BundleWriter:
    """`add` frames, the last an Ending. A Secret in none of them: values are bytes."""

    def __init__(self, file: BinaryIO, passphrase: Secret) -> None:
        document = new_document()
        self._vault = Vault(document)
        self._file = file
        self._frames = 0
        file.write(MARK)
        self._put(wrap(msgspec.msgpack.encode(document), passphrase, is_passphrase=True))

    def add(self, frame: Frame) -> None:
        self._put(self._vault.seal(_ENCODER.encode(frame), PLACE, str(self._frames)))
        self._frames += 1

    def _put(self, part: bytes) -> None:
        self._file.write(struct.pack(">I", len(part)) + part)


class BundleReader:
    """Raises BundleUnreadable for what is no export, and for another passphrase."""

    def __init__(self, file: BinaryIO, passphrase: Secret) -> None:
        file.seek(0)
        if (mark := file.read(len(MARK))) != MARK:
            if mark.startswith(NAME):
                raise BundleUnreadable("this export was written by a newer version; it takes that to read it")
            raise BundleUnreadable("this is no file of 'qwen-proxy export'")
        try:
            document = msgspec.msgpack.decode(unwrap(_part(file, MOST_KEY_BYTES), passphrase), type=VaultDocument)
        except WrongSecret as error:
            raise BundleUnreadable("the passphrase is not the one that this file was written with") from error
        self._vault = Vault(document)
        self._file = file
        self._start = file.tell()

    def frames(self) -> Iterator[Frame]:
        """All frames from the first on, a Beginning, to the last, an Ending; may be asked again.

        Raises BundleUnreadable, after some frames perhaps: who must not act on half a file reads it twice.
        """
        self._file.seek(self._start)
        number = 0
        while True:
            frame = _frame(self._vault, _part(self._file, MOST_FRAME_BYTES), number)
            if isinstance(frame, Beginning) != (number == 0):
                raise BundleUnreadable("this export is not of the form it says to be")
            yield frame
            number += 1
            if isinstance(frame, Ending):
                break
        if self._file.read(1):
            raise BundleUnreadable("something follows behind the end of this export")


def _frame(vault: Vault, sealed: bytes, number: int) -> Frame:
    try:
        return _DECODER.decode(vault.open(sealed, PLACE, str(number)))
    except WrongSecret as error:
        raise BundleUnreadable(f"part {number} of this export was changed or is damaged") from error
    except msgspec.DecodeError as error:
        raise BundleUnreadable(f"part {number} of this export has a form unknown to this version") from error


def _part(file: BinaryIO, most: int) -> bytes:
    head = file.read(4)
    size: int = struct.unpack(">I", head)[0] if len(head) == 4 else 0
    if size > most:
        raise BundleUnreadable("this export is damaged")
    part = file.read(size)
    if len(head) < 4 or len(part) < size:
        raise BundleUnreadable("this export is cut off: its end is missing")
    return part
