"""PostgreSQL 12 and later: tables, text for COPY, and statements with parameters.

A SID is text in the collation "C", each code with a dot behind it, so that what begins with a
prefix is a range of a B-tree: from `12.` to just below `12/`, as `/` follows `.` in ASCII.

Source: https://www.postgresql.org/docs, "COPY" (text format), "Collation Support", "Indexes",
"INSERT" (ON CONFLICT); https://github.com/pgvector/pgvector for vectors.
"""

from __future__ import annotations

import dataclasses
import re

from dsirm_jax.io.errors import InputError
from dsirm_jax.serving.engines.engine import FIELDS, SCALE, Document, Index, Terms, numbers

_ESCAPED = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})
_NULL = "\\N"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Postgres:
    """A table of items, one of queries known beforehand, and what asks and updates them."""

    suffix: str = "copy"

    def index_files(self, index: Index) -> dict[str, str]:
        columns = [*FIELDS, "sid", "sid_version"]
        files = {
            "schema.sql": _SCHEMA,
            "indexes.sql": _INDEXES,
            "by_prefix.sql": _BY_PREFIX,
            "known_query.sql": _KNOWN,
            "update.sql": _UPDATE,
        }
        vector = ""
        if index.dim is not None:
            columns.append("vector")
            vector = f",\n    vector vector({index.dim}) NOT NULL"
            files["schema.sql"] = f"CREATE EXTENSION IF NOT EXISTS vector;\n{_SCHEMA}"
            files["indexes.sql"] += "CREATE INDEX ON NAME USING hnsw (vector vector_cosine_ops);\n"
            files |= {"by_vector.sql": _BY_VECTOR, "by_both.sql": _BY_BOTH}
        filled = {
            "NAME": _identifier(index.name),
            "VECTOR": vector,
            "COLUMNS": ", ".join(columns),
            "GIVEN": ", ".join(f"excluded.{column}" for column in columns),
        }
        return {
            file: re.sub("|".join(filled), lambda place: filled[place[0]], text)
            for file, text in files.items()
        }

    def document(self, document: Document, *, index: Index) -> str:
        fields = [document.fields.get(name) for name in FIELDS]
        sid = f"{document.prefixes[-1]}."
        line = _line(document.item_id, *fields, sid, index.sid_version)
        if document.vector is None:
            return line
        return f"{line}\t[{','.join(map(repr, numbers(document.vector)))}]"

    def query(self, text: str, terms: Terms, *, index: Index) -> str:
        prefixes = ",".join(f"{prefix}." for prefix in terms)
        weights = ",".join(map(repr, terms.values()))
        return _line(text, f"{{{prefixes}}}", f"{{{weights}}}", index.sid_version)


def _line(*cells: str | None) -> str:
    """Returns a row as COPY reads it.

    Raises:
      InputError: a cell has the character NUL, at which loading would stop.
    """
    if any(cell and "\0" in cell for cell in cells):
        raise InputError(
            f"row {cells[0]!r} of items or queries has the character NUL, which text of PostgreSQL "
            f"cannot hold; take it out of the tables, as `dsirm prepare` does"
        )
    return "\t".join(_NULL if cell is None else cell.translate(_ESCAPED) for cell in cells)


def _identifier(name: str) -> str:
    return re.sub(r"\W", "_", name.lower())


_SCHEMA = """CREATE TABLE NAME (
    item_id text COLLATE "C" PRIMARY KEY,
    title text NOT NULL,
    brand text,
    colour text,
    category text,
    sid text COLLATE "C" NOT NULL,
    sid_version text NOT NULLVECTOR
);
CREATE TABLE NAME_queries (
    query text PRIMARY KEY,
    prefixes text[] NOT NULL,
    weights double precision[] NOT NULL,
    sid_version text NOT NULL
);
"""
# With what a query wants of them, the rows themselves are not read.
_INDEXES = "CREATE INDEX ON NAME (sid) INCLUDE (item_id, sid_version);\n"
# Rounded, as a sum of the same weights in another order may differ in its last bit, and items that
# are equal are to come in the order of their ids.
_FOUND = f"""SELECT item.item_id, round(1e{SCALE} * sum(beam.weight)) / 1e{SCALE} AS score
FROM beam JOIN NAME AS item
    ON item.sid >= beam.prefix COLLATE "C"
    AND item.sid < left(beam.prefix, -1) || '/' COLLATE "C"
    AND item.sid_version = beam.sid_version
GROUP BY item.item_id
ORDER BY score DESC, item.item_id
"""
_BEAM = """WITH beam AS (
    SELECT prefix, weight, $3::text AS sid_version
    FROM unnest($1::text[], $2::double precision[]) AS given (prefix, weight)
)"""
_OF_BEAM = "-- $1: prefixes, a dot behind each; $2: weights; $3: SID version; $4: most items"
_BY_PREFIX = f"{_OF_BEAM}\n{_BEAM}\n{_FOUND}LIMIT $4;\n"
_KNOWN = f"""-- $1: text of a query; $2: most items
WITH beam AS (
    SELECT prefix, weight, sid_version
    FROM NAME_queries, unnest(prefixes, weights) AS given (prefix, weight)
    WHERE query = $1
)
{_FOUND}LIMIT $2;
"""
# Ordered twice, as the index knows no order but that of distances.
_BY_VECTOR = """-- $1: vector; $2: SID version; $3: most items, no more than hnsw.ef_search
WITH near AS (
    SELECT item_id, 1 - (vector <=> $1::vector) AS score
    FROM NAME
    WHERE sid_version = $2
    ORDER BY vector <=> $1::vector
    LIMIT $3
)
SELECT item_id, score FROM near ORDER BY score DESC, item_id;
"""
_BY_BOTH = f"""{_OF_BEAM}; $5: vector
{_BEAM}, below AS (
{_FOUND}LIMIT $4
), near AS (
    SELECT item_id, 1 - (vector <=> $5::vector) AS score
    FROM NAME
    WHERE sid_version = $3
    ORDER BY vector <=> $5::vector
    LIMIT $4
)
SELECT item_id, sum(score) AS score
FROM (TABLE below UNION ALL TABLE near) AS found
GROUP BY item_id
ORDER BY score DESC, item_id
LIMIT $4;
"""
_UPDATE = """-- Rows of NAME_new and NAME_queries_new into NAME and NAME_queries.
LOCK TABLE NAME, NAME_queries IN SHARE ROW EXCLUSIVE MODE;
DO $$ BEGIN
    IF (SELECT count(*) FROM (
        SELECT sid_version FROM NAME UNION SELECT sid_version FROM NAME_queries
        UNION SELECT sid_version FROM NAME_new UNION SELECT sid_version FROM NAME_queries_new
    ) AS versions) > 1 THEN
        RAISE EXCEPTION 'what NAME has and what is to be added have SIDs of different versions';
    END IF;
END $$;
INSERT INTO NAME TABLE NAME_new ON CONFLICT (item_id) DO UPDATE
    SET (COLUMNS) = (GIVEN);
INSERT INTO NAME_queries TABLE NAME_queries_new ON CONFLICT (query) DO UPDATE
    SET (prefixes, weights, sid_version)
        = (excluded.prefixes, excluded.weights, excluded.sid_version);
"""

ENGINE = Postgres()
