"""An answer's columns become a dataframe without loss."""

from __future__ import annotations

import duckdb
import pytest

from esim.answer import Answer, frame


@pytest.mark.parametrize(
    "lists", [[["a", "b"], [], ["a"]], [["a", None], ["b"]], [["a"], None], [[], []], [], [["é", "→"] * 3]]
)
def test_lists_of_texts_stay_lists(lists):
    """Lists of texts come back as they went in, empty and missing ones too, whole and in slices."""
    con = duckdb.connect()
    relation = con.sql("SELECT unnest($lists::VARCHAR[][]) AS x", params={"lists": lists})
    table = relation.to_arrow_table()
    assert frame(Answer(table, ("VARCHAR[]",)))["x"].tolist() == lists
    assert frame(Answer(table.slice(1), ("VARCHAR[]",)))["x"].tolist() == lists[1:]
