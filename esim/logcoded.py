"""The texts in columns of a Parquet file as numbers, from the dictionaries that the file keeps them in.

Each row group of a file has its texts once, and numbers for its rows. Taking those costs half of reading a
text for each row and looking it up in a table of all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from esim.arrowlog import compute

if TYPE_CHECKING:
    import pyarrow as pa


_LETTERS = 8  # in a number of 64 bits


class Coded(NamedTuple):
    """The number, from 1, of the text in each row of a file, and the texts in their order."""

    numbers: Any
    texts: pa.Array

    def listed(self, number: str, text: str) -> pa.Table:
        """Return the table of the texts with their numbers, in columns of these names."""
        import numpy as np
        import pyarrow as pa

        return pa.table({number: np.arange(1, len(self.texts) + 1, dtype=np.int32), text: self.texts})


def coded(path: str, names: Sequence[str], rows: int) -> list[Coded] | None:
    """Return columns of a file; None where one is no text in each of so many rows, or DuckDB might differ.

    Whatever else is the matter with the file DuckDB says when it reads it.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if "=" in path:  # a folder as `activity=Paid` may stand for a column
        return None
    try:
        with pq.ParquetFile(path, read_dictionary=[*names]) as file:
            table = file.read([*names], use_threads=False)
        if table.column_names != [*names] or table.num_rows != rows or not rows:
            return None
        found = [_coded(column) for column in table.columns]
    except (pa.ArrowException, OSError):
        return None
    return None if None in found else [one for one in found if one is not None]


def _coded(column: pa.ChunkedArray) -> Coded | None:
    import numpy as np
    import pyarrow as pa

    if column.null_count or column.type != pa.dictionary(pa.int32(), pa.string()):
        return None
    chunks = column.unify_dictionaries().chunks
    texts = chunks[0].dictionary
    texts.validate(full=True)
    places = np.concatenate([each.indices.to_numpy() for each in chunks], dtype=np.intp)
    used = np.zeros(len(texts), bool)
    used[places] = True
    order = _order(texts)
    texts = texts.take(pa.array(order))
    if texts.null_count or not used.all() or compute().any(compute().equal(texts[1:], texts[:-1])).as_py():
        return None  # what no row has, or what stands there twice
    rank = np.empty(len(texts), np.int32)
    rank[order] = np.arange(1, len(texts) + 1, dtype=np.int32)
    return Coded(rank.take(places), texts)


def _order(texts: pa.Array) -> Any:
    """Return the places of texts in their order.

    Of ids that are as long as each other, the few bytes in which they differ are one number, which sorts in
    a tenth of the time.
    """
    import numpy as np

    begins = np.frombuffer(texts.buffers()[1], np.int32)[texts.offset : texts.offset + len(texts) + 1]
    length = begins[1] - begins[0]
    if length and (np.diff(begins) == length).all():
        letters = np.frombuffer(texts.buffers()[2], np.uint8)[begins[0] : begins[-1]].reshape(-1, length)
        apart = np.flatnonzero((letters != letters[0]).any(axis=0))
        if len(apart) <= _LETTERS:
            number = np.zeros(len(texts), np.uint64)
            for place in apart:
                number <<= 8
                number |= letters[:, place]
            return np.argsort(number)
    return compute().sort_indices(texts).to_numpy()


def with_numbers(rows: pa.Table, cases: Coded, activities: Coded) -> pa.Table:
    """Return rows, which are numbered from 0 in their column r, with the numbers of cases and activities."""
    import numpy as np
    import pyarrow as pa

    r = rows["r"].to_numpy().astype(np.intp)
    columns = dict(zip(rows.column_names, rows.columns, strict=True))
    return pa.table({"s": cases.numbers.take(r), "a": activities.numbers.take(r), **columns})
