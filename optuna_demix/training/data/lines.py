"""Documents from JSON, CSV and plain text, as a file is read: none is held whole.

``datasets`` is not asked here: its JSON reader stops where a later document has another field,
and tells neither file nor line.
"""

from __future__ import annotations

import codecs
import io
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from optuna_demix.errors import ConfigError
from optuna_demix.training.data.files import DataFile
from optuna_demix.training.data.streams import Position, Stream, opened

_CHUNK = 1 << 20
_LONGEST_DOCUMENT = 1 << 28  # characters of a document in JSON over several lines
_CSV_ROWS = 512

Row = Mapping[str, Any]


def jsonl_rows(file: DataFile, position: Position) -> Iterator[tuple[str, Row]]:
    """Objects of a file that has one a line, each with its place in words."""
    with opened(file) as stream:
        for number, line in enumerate(stream.content, 1):
            if number % 64 == 1:
                position.share = stream.share
            if not line.strip():
                continue
            place = f"{file}, line {number}"
            try:
                row = json.loads(_decoded(line.removeprefix(codecs.BOM_UTF8), place))
            except (json.JSONDecodeError, RecursionError):
                raise ConfigError(
                    f'{place}: is not JSON; each line must be {{"text": ...}}'
                ) from None
            yield place, row if isinstance(row, dict) else {}


def json_rows(file: DataFile, position: Position) -> Iterator[tuple[str, Row]]:
    """Objects of a file that holds a list of them, or one after another."""
    with opened(file) as stream:
        for number, row in enumerate(_json_values(file, stream, position), 1):
            yield f"{file}, document {number}", row if isinstance(row, dict) else {}


def _json_values(file: DataFile, stream: Stream, position: Position) -> Iterator[Any]:
    decode = json.JSONDecoder().raw_decode
    reader = io.TextIOWrapper(stream.content, encoding="utf-8-sig")
    buffer, start, more, in_list, first = "", 0, _CHUNK, False, True
    number = 1
    while True:
        start = _after(buffer, start, " \t\r\n," if in_list else " \t\r\n")
        ended = False
        try:
            if first and buffer[start : start + 1] == "[":
                in_list, first = True, False
                start += 1
                continue
            if in_list and buffer[start : start + 1] == "]":
                return
            value, end = decode(buffer, start)
            # What touches the end of the buffer may go on.
            ended = end < len(buffer) or buffer[end - 1 : end] in ("}", "]", '"')
        except (json.JSONDecodeError, RecursionError):
            if len(buffer) - start > _LONGEST_DOCUMENT:
                raise ConfigError(f"{file}, document {number}: is not JSON; correct it") from None
        if ended:
            first = False
            yield value
            number += 1
            start = end
            continue
        chunk = reader.read(more)
        position.share = stream.share
        if not chunk:
            if not buffer[start:].strip() and not in_list:
                return
            raise ConfigError(
                f"{file}, document {number}: is not JSON, or cut short; correct the file"
            )
        buffer, start = buffer[start:] + chunk, 0
        more = max(_CHUNK, len(buffer))  # so that a long document is not begun too often


def _after(text: str, start: int, skipped: str) -> int:
    while start < len(text) and text[start] in skipped:
        start += 1
    return start


def csv_rows(file: DataFile, position: Position) -> Iterator[tuple[str, Row]]:
    """Rows of a table with a header; every value is text as it stands there."""
    import pandas as pd

    with opened(file) as stream:
        frames = pd.read_csv(
            stream.content,
            sep="\t" if re.search(r"\.tsv(\.\w+)?$", file.url.lower()) else ",",
            dtype=str,
            keep_default_na=False,  # a document may be "NA"
            chunksize=_CSV_ROWS,
            encoding="utf-8-sig",
            engine="c",
        )
        number = 0
        for frame in frames:
            position.share = stream.share
            for row in frame.to_dict("records"):
                number += 1
                yield f"{file}, row {number}", row


def text_parts(file: DataFile, position: Position) -> Iterator[str]:
    """A text file, which is one document, in long parts."""
    with opened(file) as stream:
        decoder = codecs.getincrementaldecoder("utf-8-sig")()
        read = 0
        while True:
            chunk = stream.content.read(_CHUNK)
            try:
                text = decoder.decode(chunk, final=not chunk)
            except UnicodeDecodeError as error:
                raise _not_utf8(str(file), read + error.start) from None
            read += len(chunk)
            position.share = stream.share
            yield text
            if not chunk:
                return


def _decoded(data: bytes, place: str) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _not_utf8(place, error.start) from None


def _not_utf8(place: str, byte: int) -> ConfigError:
    return ConfigError(f"{place}: is not UTF-8 (byte {byte}); convert or remove it")
