import pytest

from rediffuse.errors import RunError
from rediffuse.runs import log


def test_rows_come_back(tmp_path):
    path = tmp_path / "metrics.jsonl"
    log.append(path, [{"epoch": 0, "reward": 0.1}])
    log.append(path, [{"epoch": 1, "reward": 1 / 3}])
    assert log.read(path) == [{"epoch": 0, "reward": 0.1}, {"epoch": 1, "reward": 1 / 3}]


def test_a_torn_last_line_is_dropped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"epoch": 0}\n{"epoch": 1}\n{"epo')
    assert log.read(path) == [{"epoch": 0}, {"epoch": 1}]


def test_a_line_that_is_no_row_is_told_though_its_checksum_is_right(tmp_path):
    path = tmp_path / "metrics.jsonl"
    log.append(path, [{"epoch": 0}, {"other": 1}, {"epoch": 2}])
    with pytest.raises(RunError, match="line 2"):
        log.read(path)
    assert log.read(path, drop_damaged=True) == [{"epoch": 0}, {"epoch": 2}]


def test_lines_with_and_without_checksums_give_their_rows(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"epoch": 0}\n')
    log.append(path, [{"epoch": 1}, {"epoch": 2}])
    assert [row["epoch"] for row in log.read(path)] == [0, 1, 2]


def test_rows_that_will_be_written_again_are_dropped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    log.append(path, [{"epoch": epoch} for epoch in range(5)])
    with path.open("a") as file:
        file.write('{"epo')
    log.keep_before(path, 3)
    assert log.read(path) == [{"epoch": epoch} for epoch in range(3)]
    log.keep_before(path, 0)
    assert log.read(path) == []


def test_no_file_no_rows(tmp_path):
    assert log.read(tmp_path / "none.jsonl") == []
    log.keep_before(tmp_path / "none.jsonl", 3)


def flipped(path, number, old, new):
    lines = path.read_text().split("\n")
    assert old in lines[number - 1]
    lines[number - 1] = lines[number - 1].replace(old, new, 1)
    path.write_text("\n".join(lines))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("0.25", "0.75"),
        ("reward", "rewarc"),
        ('"crc32": ', '"crc32": 1'),
        ('"crc32"', '"crc33"'),
        ("{", "("),
        (": ", " :"),
    ],
)
def test_a_line_that_was_changed_is_told_with_its_number(old, new, tmp_path):
    path = tmp_path / "metrics.jsonl"
    log.append(path, [{"epoch": epoch, "reward": 0.25} for epoch in range(3)])
    assert len(log.read(path)) == 3  # the control
    flipped(path, 2, old, new)
    with pytest.raises(RunError, match=r"metrics\.jsonl, line 2"):
        log.read(path)
    assert [row["epoch"] for row in log.read(path, drop_damaged=True)] == [0, 2]


def test_every_bit_of_a_line_counts(tmp_path):
    path = tmp_path / "metrics.jsonl"
    log.append(path, [{"epoch": 0}, {"epoch": 1, "reward": 1 / 3, "prompt": "zwölf"}])
    whole = path.read_bytes()
    begin = whole.index(b"\n") + 1
    for place in range(8 * begin, 8 * (len(whole) - 1)):
        changed = bytearray(whole)
        changed[place // 8] ^= 1 << place % 8
        path.write_bytes(bytes(changed))
        with pytest.raises(RunError):
            log.read(path)


def test_every_bit_of_the_only_line_counts(tmp_path):
    """None before it has a checksum, so that it may seem to be one of an older version."""
    path = tmp_path / "monitor.jsonl"
    log.append(path, [{"epoch": 0, "values": [0.25, 7]}])
    whole = path.read_bytes()
    for place in range(8 * (len(whole) - 1)):
        changed = bytearray(whole)
        changed[place // 8] ^= 1 << place % 8
        path.write_bytes(bytes(changed))
        with pytest.raises(RunError):
            log.read(path)


def test_an_older_line_that_ends_in_a_number_is_believed(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"epoch": 0, "peak_memory_bytes": 1234567890}\n{"epoch": 1}\n')
    assert [row["epoch"] for row in log.read(path)] == [0, 1]


def test_lines_of_older_versions_are_believed_until_one_with_a_checksum_comes(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"epoch": 0}\n')
    log.append(path, [{"epoch": 1}])
    assert log.read(path) == [{"epoch": 0}, {"epoch": 1}]
    with path.open("a") as file:
        file.write('{"epoch": 2}\n')
    with pytest.raises(RunError, match="line 3"):
        log.read(path)
