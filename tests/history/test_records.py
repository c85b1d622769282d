"""The history file: what is written comes back, damage is told from a cut tail, and a full disk is told at once."""

from __future__ import annotations

import os
import resource
import zlib
from pathlib import Path

import pytest

from pekan.errors import EvidenceError, RecorderFailure
from pekan.history import RecordFile, RecordWriter, read_records
from pekan.wire._generated import pekan_record_pb2 as record_pb


def some_records(count: int) -> list[record_pb.Record]:
    """Short records of every kind in turn, so that every bit of a file of a hundred can be tried."""
    records = []
    for number in range(1, count + 1):
        record = record_pb.Record(time_ns=1_000_000_007 * number)
        kind = number % 4
        if kind == 0:
            record.invoked.operation = number
            record.invoked.request = b"\x0a\x01k"
        elif kind == 1:
            record.completed.operation = number - 1
            record.completed.message = "no"
        elif kind == 2:
            record.stream_received.stream = 1
            record.stream_received.response = bytes([number, 0x7D, 0x09])
        else:
            record.mark.kind = "end"
        records.append(record)
    return records


def write(path: Path, records: list[record_pb.Record]) -> list[int]:
    """Write `records` to `path`; the offsets at which each ends."""
    writer = RecordWriter(path)
    ends = []
    for record in records:
        writer.write(record)
        ends.append(writer.bytes_written)
    writer.close()
    return ends


def bodies(records: list[record_pb.Record]) -> list[bytes]:
    """The records without their checksums, to compare."""
    result = []
    for record in records:
        plain = record_pb.Record.FromString(record.SerializeToString())
        plain.ClearField("crc")
        result.append(plain.SerializeToString())
    return result


def test_records_come_back_as_written(tmp_path: Path) -> None:
    """Records of all sizes, up to some beyond the reading buffer, come back equal and in order, each at the offset where it was put."""
    path = tmp_path / "history.pb"
    records = some_records(50)
    for size in (0, 1, 100, 127, 128, 200, 16_383, 16_384, 70_000, (1 << 20) - 20, 1 << 20, (1 << 21) + 5):
        records.append(record_pb.Record(time_ns=1, stream_received=record_pb.StreamReceived(stream=1, response=os.urandom(size))))
    ends = write(path, records)
    reading = read_records(path)
    assert bodies(reading.records) == bodies(records)
    assert reading.cut == 0
    assert [offset for offset, _ in RecordFile(path)] == [0, *ends[:-1]]
    assert ends[-1] == path.stat().st_size


def test_a_record_ends_with_the_checksum_of_what_is_before(tmp_path: Path) -> None:
    """The layout on disk is the documented one, written down here byte by byte: length, message, tag 0x7d, CRC-32 little-endian."""
    path = tmp_path / "history.pb"
    record = record_pb.Record(time_ns=258, mark=record_pb.Mark(kind="end"))
    write(path, [record])
    body = b"\x09\x02\x01\0\0\0\0\0\0" + b"\x52\x05\x0a\x03end"
    assert path.read_bytes() == bytes([len(body) + 5]) + body + b"\x7d" + zlib.crc32(body).to_bytes(4, "little")
    assert read_records(path).records[0].crc == zlib.crc32(body)


def test_every_flipped_bit_is_seen(tmp_path: Path) -> None:
    """No single flipped bit of a 100-record file changes the history: it is refused, or the last record counts as cut."""
    path = tmp_path / "history.pb"
    records = some_records(100)
    ends = write(path, records)
    expected = bodies(records)
    data = path.read_bytes()
    refused = cut = 0
    with open(path, "r+b", buffering=0) as file:
        for at in range(len(data)):
            for bit in range(8):
                os.pwrite(file.fileno(), bytes([data[at] ^ 1 << bit]), at)
                try:
                    reading = read_records(path)
                except EvidenceError as error:
                    refused += str(error).startswith(f"{path}: byte ")
                else:
                    assert at >= ends[-2], f"bit {bit} of byte {at} went unseen"
                    assert bodies(reading.records) == expected[:-1]
                    assert reading.cut == len(data) - ends[-2]
                    cut += 1
            os.pwrite(file.fileno(), data[at : at + 1], at)
    assert refused >= 8 * ends[-2]
    assert cut > 0
    assert refused + cut == 8 * len(data)


def test_every_truncation_is_a_cut_tail(tmp_path: Path) -> None:
    """A file cut at any byte gives the whole records before the cut and the number of bytes after them; cut in the first, nothing."""
    path = tmp_path / "history.pb"
    records = some_records(100)
    ends = write(path, records)
    expected = bodies(records)
    for length in range(ends[-1], -1, -1):
        os.truncate(path, length)
        whole = sum(end <= length for end in ends)
        if whole == 0:
            with pytest.raises(EvidenceError, match=r"byte 0: "):
                read_records(path)
            continue
        reading = read_records(path)
        assert bodies(reading.records) == expected[:whole]
        assert reading.cut == length - ends[whole - 1]


def test_a_hole_is_not_a_cut_tail(tmp_path: Path) -> None:
    """Bytes taken out of or put into the middle are damage, named with the offset where reading stopped and of what follows."""
    path = tmp_path / "history.pb"
    ends = write(path, some_records(10))
    data = path.read_bytes()
    path.write_bytes(data[: ends[4] + 3] + data[ends[4] + 4 :])
    with pytest.raises(EvidenceError, match=rf"byte {ends[4]}: .* \(at byte {ends[5]}\)"):
        read_records(path)
    path.write_bytes(data[: ends[4]] + bytes(100) + data[ends[4] :])
    with pytest.raises(EvidenceError, match=rf"byte {ends[4]}: "):
        read_records(path)


def test_zeros_at_the_end_are_a_cut_tail(tmp_path: Path) -> None:
    """A file whose end became zeros (a power loss before the data reached the disk) is read up to them."""
    path = tmp_path / "history.pb"
    records = some_records(10)
    write(path, records)
    with open(path, "ab") as file:
        file.write(bytes(5_000))
    reading = read_records(path)
    assert bodies(reading.records) == bodies(records)
    assert reading.cut == 5_000


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "the file is empty"),
        (b"# a text file, and no history\n" * 40, "not a history that Pekan recorded"),
        (b"\xff\xff\xff\xff\x07" + bytes(100), "expected a record of 2147483647 bytes, found 105 bytes"),
        (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01" + bytes(100), "expected the length of a record"),
        (b"\x85", "expected the length of a record, found 1 bytes of one"),
        (b"\x05\x7d\0\0\0\0", "expected a record of 5 bytes that ends with its checksum"),
        (b"\0" * 64, "expected a record of 0 bytes"),
    ],
)
def test_what_is_no_history_is_refused(tmp_path: Path, content: bytes, expected: str) -> None:
    """A file without a single record is refused at byte 0 with what was expected there, however absurd its lengths are."""
    path = tmp_path / "history.pb"
    path.write_bytes(content)
    with pytest.raises(EvidenceError, match=expected) as caught:
        read_records(path)
    assert "byte 0" in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_message_that_is_no_record_is_refused(tmp_path: Path) -> None:
    """A right checksum over bytes that are no record is damage with its offset, even at the end of the file."""
    path = tmp_path / "history.pb"
    [end] = write(path, some_records(1))
    nonsense = b"\x09\x01\x02"
    with open(path, "ab") as file:
        file.write(bytes([len(nonsense) + 5]) + nonsense + b"\x7d" + zlib.crc32(nonsense).to_bytes(4, "little"))
    with pytest.raises(EvidenceError, match=rf"byte {end}: checksum right, but not a record"):
        read_records(path)


def test_a_path_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    """A missing file, a directory and a device that answers with an error are refused with the system's own reason."""
    with pytest.raises(EvidenceError, match="No such file"):
        read_records(tmp_path / "none.pb")
    with pytest.raises(EvidenceError, match="Is a directory"):
        read_records(tmp_path)
    # Address 0 of any process is not mapped: read(2) fails with EIO.
    with pytest.raises(EvidenceError, match=r"Input/output error \(EIO\)"):
        read_records("/proc/self/mem")


def test_a_full_disk_stops_the_writer() -> None:
    """ENOSPC is a RecorderFailure with file and reason, and the writer refuses everything from then on."""
    writer = RecordWriter("/dev/full")
    record = some_records(1)[0]
    for _ in range(2):
        with pytest.raises(RecorderFailure, match=r"/dev/full: cannot be written after 0 bytes: No space left on device \(ENOSPC\)"):
            writer.write(record)
    writer.close()


def test_a_torn_write_leaves_a_cut_tail(tmp_path: Path) -> None:
    """Where only a part of a record fits, the records before it can be read, and none is written after the torn one."""
    path = tmp_path / "history.pb"
    writer = RecordWriter(path)
    records = some_records(8)
    for record in records[:6]:
        writer.write(record)
    whole = writer.bytes_written
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (whole + 7, hard))
    try:
        with pytest.raises(RecorderFailure, match="EFBIG"):
            writer.write(records[6])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    with pytest.raises(RecorderFailure, match="EFBIG"):
        writer.write(records[7])
    writer.close()
    reading = read_records(path)
    assert bodies(reading.records) == bodies(records[:6])
    assert reading.cut == 7


def test_one_writer_a_file_and_never_over_evidence(tmp_path: Path) -> None:
    """A file that another writer has open, or that holds anything, is refused; so is a place that does not exist."""
    path = tmp_path / "history.pb"
    writer = RecordWriter(path)
    with pytest.raises(RecorderFailure, match="another writer has it"):
        RecordWriter(path)
    writer.write(some_records(1)[0])
    writer.close()
    writer.close()
    before = path.read_bytes()
    with pytest.raises(RecorderFailure, match="is not empty"):
        RecordWriter(path)
    with pytest.raises(RecorderFailure, match="is closed"):
        writer.write(some_records(1)[0])
    with pytest.raises(RecorderFailure, match="cannot be created"):
        RecordWriter(tmp_path / "none" / "history.pb")
    assert path.read_bytes() == before


def test_what_was_written_is_there_before_close(tmp_path: Path) -> None:
    """Nothing waits in a buffer: when `write` has returned, another reader of the file sees the record."""
    path = tmp_path / "history.pb"
    writer = RecordWriter(path)
    for number, record in enumerate(some_records(20), 1):
        writer.write(record)
        assert len(read_records(path).records) == number
    writer.close()
