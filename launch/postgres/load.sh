#!/usr/bin/env bash
# Loads what `dsirm export --to=postgres` wrote, all of it or nothing, by psql:
#   launch/postgres/load.sh [--dry_run] FOLDER [postgresql://...]
# into the database that the last argument names, or PGHOST, PGDATABASE, PGUSER and so on. The tables
# must not be there: give new SIDs an --index of their own, then rename. --dry_run prints what psql
# is told instead.
set -euo pipefail

dry_run=
if [[ ${1:-} == --dry_run ]]; then
  dry_run=1
  shift
fi
if [[ $# -lt 1 || $# -gt 2 || ! -f $1/schema.sql ]]; then
  echo "usage: $0 [--dry_run] FOLDER [postgresql://...], e.g. $0 out/demo/postgres" >&2
  exit 2
fi
folder=$1 database=${2:-}
table=$(sed -n 's/^CREATE TABLE \([a-z0-9_]*\)_queries (/\1/p' "${folder}/schema.sql")

copies() { # TABLE FILE...
  local into=$1 file
  shift
  for file in "$@"; do
    echo "\\copy ${into} from '${file//\'/\'\'}'"
  done
}

statements() {
  echo "BEGIN;"
  cat "${folder}/schema.sql"
  copies "${table}" "${folder}"/documents-*.copy
  copies "${table}_queries" "${folder}"/queries-*.copy
  cat "${folder}/indexes.sql"
  echo "COMMIT;"
  echo "VACUUM ANALYZE ${table}, ${table}_queries;"
}

if [[ -n ${dry_run} ]]; then
  statements
else
  statements | psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 ${database:+--dbname="${database}"}
fi
