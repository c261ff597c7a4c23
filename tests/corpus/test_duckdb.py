"""duckdb (MSVC, static runtime): SQL on several threads, with C++ exceptions thrown and caught."""

from __future__ import annotations

from pathlib import Path

from rig import corpus, tracing

# Each statement marked here ends in an error that duckdb throws as a C++ exception, catches and reports.
_SQL = b"""
SET threads = 4;
CREATE TABLE numbers AS SELECT i, i * 7919 % 1000 AS k, 'name ' || (i % 97) AS name FROM range(130000) t(i);
SELECT k % 5 AS part, count(*), sum(i), max(name) FROM numbers GROUP BY part ORDER BY part;
SELECT no_such_column FROM numbers; -- error
SELECT sum(CAST('no number ' || (i - i) AS INTEGER)) FROM numbers; -- error, thrown in several threads
SELECT count(TRY_CAST(name AS INTEGER)) FROM numbers;
CREATE TABLE keyed (id INTEGER PRIMARY KEY, v VARCHAR);
INSERT INTO keyed SELECT i, name FROM numbers WHERE i < 500;
INSERT INTO keyed VALUES (7, 'again'); -- error
SELEC 1; -- error
SELECT a.k, count(*) FROM numbers a JOIN keyed b ON a.k = b.id GROUP BY a.k ORDER BY 2 DESC, 1 LIMIT 5;
SELECT regexp_replace(name, '([0-9])', '<\\1>', 'g') AS r, list_sort(list(i))[1:3] FROM numbers
  WHERE i < 1000 GROUP BY r ORDER BY r LIMIT 4;
COPY (SELECT * FROM numbers WHERE k = 20 ORDER BY i) TO 'out.csv' (HEADER);
SELECT error('on request'); -- error
"""


def test_answers_queries_and_errors_the_same_three_times_traced(tmp_path: Path) -> None:
    job = tracing.Job(corpus.program("duckdb"), ["-csv"], tmp_path / "work", stdin=_SQL)
    plain = tracing.runs_the_same_three_times_traced(job, tmp_path / "duckdb.calltrace")
    errors = (
        b"no_such_column",
        b"Could not convert string",
        b"Duplicate key",
        b"syntax error",
        b"on request",
    )
    for error in errors:
        assert error in plain.stderr
    assert b"0,26000," in plain.stdout
    assert plain.files["out.csv"].startswith(b"i,k,name")
