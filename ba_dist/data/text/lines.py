"""The lines of text files, for every task that learns from text."""

from pathlib import Path

from ba_dist.errors import DataError


def read_lines(path: Path) -> list[str]:
    """The lines of a UTF-8 file, without their ends.

    Only the character of a new line ends one, and a carriage return before it goes with it: files
    that are aligned line by line must not come apart at other signs that Unicode calls line ends.

    Raises:
        DataError: when the file cannot be read, or naming the first line that is not UTF-8.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path}, line {line} is not UTF-8 (byte 0x{content[error.start]:02x});"
            " expected text in UTF-8: convert the file, for example with iconv"
        ) from None
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    return lines[:-1] if lines[-1] == "" else lines
