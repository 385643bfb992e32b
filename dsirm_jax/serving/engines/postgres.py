"""PostgreSQL 12 and later: tables, text for COPY, and statements with parameters.

A SID is text in the collation "C", each code with a dot behind it, so that what begins with a
prefix is a range of a B-tree: from `12.` to just below `12/`, as `/` follows `.` in ASCII.

Source: https://www.postgresql.org/docs, "COPY" (text format), "Collation Support", "Indexes";
https://github.com/pgvector/pgvector for vectors.
"""

from __future__ import annotations

import dataclasses
import re

from dsirm_jax.serving.engines.engine import FIELDS, Document, Index, Terms, numbers

_ESCAPED = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})
_NULL = "\\N"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Postgres:
    """A table of items, one of queries known beforehand, and what asks them."""

    suffix: str = "copy"

    def index_files(self, index: Index) -> dict[str, str]:
        name = _identifier(index.name)
        vector, nearest = "", ""
        if index.dim is not None:
            vector = f",\n    vector vector({index.dim}) NOT NULL"
            nearest = f"CREATE INDEX ON {name} USING hnsw (vector vector_cosine_ops);\n"
        extension = "" if index.dim is None else "CREATE EXTENSION IF NOT EXISTS vector;\n"
        return {
            "schema.sql": extension + _SCHEMA.replace("NAME", name).replace("VECTOR", vector),
            "indexes.sql": _INDEXES.replace("NAME", name) + nearest,
            "by_prefix.sql": _BY_PREFIX.replace("NAME", name),
            "known_query.sql": _KNOWN.replace("NAME", name),
        }

    def document(self, document: Document, *, index: Index) -> str:
        fields = [document.fields.get(name) for name in FIELDS]
        cells = [document.item_id, *fields, f"{document.prefixes[-1]}.", index.sid_version]
        line = "\t".join(_NULL if cell is None else cell.translate(_ESCAPED) for cell in cells)
        if document.vector is None:
            return line
        return f"{line}\t[{','.join(map(repr, numbers(document.vector)))}]"

    def query(self, text: str, terms: Terms, *, index: Index) -> str:
        prefixes = ",".join(f"{prefix}." for prefix in terms)
        weights = ",".join(map(repr, terms.values()))
        cells = (text.translate(_ESCAPED), f"{{{prefixes}}}", f"{{{weights}}}", index.sid_version)
        return "\t".join(cells)


def _identifier(name: str) -> str:
    return re.sub(r"\W", "_", name.lower())


_SCHEMA = """CREATE TABLE NAME (
    item_id text PRIMARY KEY,
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
_FOUND = """SELECT item.item_id, sum(beam.weight) AS score
FROM beam JOIN NAME AS item
    ON item.sid >= beam.prefix COLLATE "C"
    AND item.sid < left(beam.prefix, -1) || '/' COLLATE "C"
    AND item.sid_version = beam.sid_version
GROUP BY item.item_id
ORDER BY score DESC, item.item_id
"""
_BY_PREFIX = (
    """-- $1: prefixes, each with a dot behind it; $2: weights; $3: SID version; $4: most items
WITH beam AS (
    SELECT prefix, weight, $3::text AS sid_version
    FROM unnest($1::text[], $2::double precision[]) AS given (prefix, weight)
)
"""
    + _FOUND
    + "LIMIT $4;\n"
)
_KNOWN = (
    """-- $1: text of a query; $2: most items
WITH beam AS (
    SELECT prefix, weight, sid_version
    FROM NAME_queries, unnest(prefixes, weights) AS given (prefix, weight)
    WHERE query = $1
)
"""
    + _FOUND
    + "LIMIT $2;\n"
)

ENGINE = Postgres()
