"""Blocks as files: whole or not there, and never more of them than allowed."""

import os
import stat

import pytest

from hgpu.runtime.vllm.block_folder import BlockFolder


def aged(folder, name, seconds):
    os.utime(folder / f"{name}.kv", (seconds, seconds))


def test_what_is_written_is_read_by_others(tmp_path):
    BlockFolder(tmp_path / "kv", 100).write("a", b"block")
    reader = BlockFolder(tmp_path / "kv")
    assert reader.has("a") and reader.read("a") == b"block"
    assert not reader.has("b")
    with pytest.raises(FileNotFoundError):
        reader.read("b")


def test_only_its_user_sees_what_prompts_say(tmp_path):
    BlockFolder(tmp_path / "kv")
    assert stat.S_IMODE((tmp_path / "kv").stat().st_mode) == 0o700


def test_the_least_recently_used_goes_when_there_is_too_much(tmp_path):
    folder = BlockFolder(tmp_path, 100)
    for age, name in enumerate("abcde"):
        folder.write(name, bytes(20))
        aged(tmp_path, name, 1000 + age)
    assert folder.has("a")  # and so it was used
    folder.write("f", bytes(20))
    assert sorted(path.stem for path in tmp_path.glob("*.kv")) == ["a", "d", "e", "f"]


def test_the_bound_holds_however_much_is_written(tmp_path):
    folder = BlockFolder(tmp_path, 100)
    for number in range(50):
        folder.write(str(number), bytes(7))
        assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 100


def test_several_writers_stay_within_the_sum_of_their_limits(tmp_path):
    writers = [BlockFolder(tmp_path, limit) for limit in (50, 50, 100)]
    for number in range(200):
        writers[number * 7 % 11 % 3].write(str(number), bytes(5))
        assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 200


def test_a_writer_that_comes_back_counts_what_is_there_and_clears_what_it_left_half_written(tmp_path):
    for name in "abcdef":
        BlockFolder(tmp_path, 1000).write(name, bytes(20))
    (tmp_path / ".g.part").write_bytes(bytes(5))
    BlockFolder(tmp_path, 100)
    assert len(list(tmp_path.iterdir())) == 4


def test_a_block_that_finds_no_place_leaves_nothing(tmp_path):
    folder = BlockFolder(tmp_path, 100)
    (tmp_path / "a.kv").mkdir()  # what it can't be put in the place of
    with pytest.raises(OSError):
        folder.write("a", b"block")
    assert [path.name for path in tmp_path.iterdir()] == ["a.kv"]
