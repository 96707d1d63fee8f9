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
