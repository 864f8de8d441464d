"""The file of an export: what is read is what was written, or nothing."""

import io
import struct
from itertools import pairwise

import pytest
from msgspec import Struct

from qwen_proxy.ground.secret import Secret
from qwen_proxy.operations.transfer.bundle import (
    MARK,
    Beginning,
    BundleReader,
    BundleUnreadable,
    BundleWriter,
    CarriedLine,
    CarriedRecord,
    CarriedUsage,
    Ending,
    Frame,
    Lines,
    Records,
    Usage,
)
from qwen_proxy.state.store import UsageCounts, UsageKey

PASSPHRASE = Secret("correct horse")
KEY = UsageKey(starts_at=3600, key="k", account="a", model="m", feature="chat")
FRAMES: list[Frame] = [
    Beginning(program="1", made_at=5.0, pepper=b"p"),
    Records("account", (CarriedRecord("canary", b"canary", None), CarriedRecord("b", b"", 7.0))),
    Lines("audit", (CarriedLine(1.5, b"canary"),)),
    Usage((CarriedUsage(KEY, UsageCounts(requests=1)),)),
    Ending(2, 1, 1),
]


def written(*parts: Frame) -> bytes:
    file = io.BytesIO()
    writer = BundleWriter(file, PASSPHRASE)
    for part in parts:
        writer.add(part)
    return file.getvalue()


def read(data: bytes, passphrase: Secret = PASSPHRASE) -> list[Frame]:
    return list(BundleReader(io.BytesIO(data), passphrase).frames())


WRITTEN = written(*FRAMES)


def cuts() -> list[int]:
    """Where each part of the file begins."""
    found = [len(MARK)]
    while found[-1] < len(WRITTEN):
        (size,) = struct.unpack_from(">I", WRITTEN, found[-1])
        found.append(found[-1] + 4 + size)
    return found


def test_what_was_written_is_read_and_can_not_be_read_without_the_passphrase() -> None:
    assert read(WRITTEN) == FRAMES
    assert b"canary" not in WRITTEN
    with pytest.raises(BundleUnreadable, match="passphrase is not the one"):
        read(WRITTEN, Secret("another"))


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "no file of 'qwen-proxy export'"),
        (b"PK\x03\x04", "no file of 'qwen-proxy export'"),
        (WRITTEN.replace(b"export 1", b"export 2"), "newer version"),
        (WRITTEN + b"x", "something follows"),
        (MARK + struct.pack(">I", 2**31), "damaged"),
        (MARK + struct.pack(">I", 3) + b"abc", "passphrase is not the one"),
        (written(*FRAMES[:-1]), "cut off"),
        (written(*FRAMES[1:]), "not of the form"),
        (written(*FRAMES[:1], *FRAMES), "not of the form"),
    ],
)
def test_what_is_no_whole_export_is_refused(data: bytes, says: str) -> None:
    with pytest.raises(BundleUnreadable, match=says):
        read(data)


def test_no_cut_and_no_changed_byte_goes_unnoticed() -> None:
    begin = cuts()[1]  # behind the key, whose derivation takes its time
    for end in (0, len(MARK), len(MARK) + 2, begin - 1):
        with pytest.raises(BundleUnreadable):
            read(WRITTEN[:end])
    file = io.BytesIO(WRITTEN)
    reader = BundleReader(file, PASSPHRASE)
    for end in range(begin, len(WRITTEN)):
        file.seek(0)
        file.truncate(0)
        file.write(WRITTEN[:end])
        with pytest.raises(BundleUnreadable):
            list(reader.frames())
    file.seek(0)
    file.write(WRITTEN)
    for at in range(begin, len(WRITTEN)):
        file.getbuffer()[at] ^= 1
        with pytest.raises(BundleUnreadable):
            list(reader.frames())
        file.getbuffer()[at] ^= 1
    assert list(reader.frames()) == FRAMES


def test_parts_can_not_be_left_out_moved_or_taken_from_another_file() -> None:
    places = cuts()
    parts = [WRITTEN[start:end] for start, end in pairwise(places)]
    other = written(*FRAMES)
    for order in ([0, 1, 3, 4, 5], [0, 1, 3, 2, 4, 5], [0, 1, 2, 2, 3, 4, 5], [0, 1, 5]):
        with pytest.raises(BundleUnreadable):
            read(MARK + b"".join(parts[index] for index in order))
    with pytest.raises(BundleUnreadable):
        read(WRITTEN[: places[2]] + other[places[2] :])
    assert read(MARK + b"".join(parts)) == FRAMES


def test_a_part_of_another_form_is_of_another_version() -> None:
    class Dream(Struct, tag="dream"):
        pass

    data = written(FRAMES[0], Dream())  # pyright: ignore[reportArgumentType]  # as a newer version might
    with pytest.raises(BundleUnreadable, match="part 1 of this export has a form unknown to this version"):
        read(data)
