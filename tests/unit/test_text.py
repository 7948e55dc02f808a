"""Text files: lines, and what is told of a file that is no text."""

import pytest

from ba_dist.data.text.lines import read_lines
from ba_dist.errors import DataError


def test_only_new_lines_end_a_line(tmp_path):
    file = tmp_path / "lines.txt"
    file.write_bytes("\ufeffone\u2028more\r\n\nlast".encode())
    assert read_lines(file) == ["one\u2028more", "", "last"]


@pytest.mark.parametrize("content, lines", [("", []), ("a\n", ["a"]), ("a\n\n", ["a", ""])])
def test_an_end_is_not_a_line(tmp_path, content, lines):
    file = tmp_path / "lines.txt"
    file.write_text(content)
    assert read_lines(file) == lines


def test_the_first_line_that_is_not_utf8_is_named(tmp_path):
    file = tmp_path / "latin1.txt"
    file.write_bytes(b"good\ngr\xfc\xdfe\n")
    with pytest.raises(DataError, match=r"latin1.txt, line 2 is not UTF-8 \(byte 0xfc\)"):
        read_lines(file)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match="nowhere.txt cannot be read: No such file"):
        read_lines(tmp_path / "nowhere.txt")
