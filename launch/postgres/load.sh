#!/usr/bin/env bash
# Loads what `dsirm export --to=postgres` wrote, all of it or nothing, by psql:
#   launch/postgres/load.sh [--dry_run] [--update] FOLDER [postgresql://...]
# into the database that the last argument names, or PGHOST, PGDATABASE, PGUSER and so on. The tables
# must not be there: give new SIDs an --index of their own, then rename. With --update they are there,
# and get further items and queries with SIDs of their version. --dry_run prints what psql is told
# instead.
set -euo pipefail

dry_run='' update=''
while [[ ${1:-} == --* ]]; do
  case $1 in
  --dry_run) dry_run=1 ;;
  --update) update=1 ;;
  *) set -- ;;
  esac
  shift || true
done
if [[ $# -lt 1 || $# -gt 2 || ! -f $1/schema.sql ]]; then
  echo "usage: $0 [--dry_run] [--update] FOLDER [postgresql://...], e.g. $0 out/demo/postgres" >&2
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
  local new=${update:+_new} of
  echo "BEGIN;"
  if [[ -n ${update} ]]; then
    for of in "${table}" "${table}_queries"; do
      echo "CREATE TEMPORARY TABLE ${of}_new (LIKE ${of}) ON COMMIT DROP;"
    done
  else
    cat "${folder}/schema.sql"
  fi
  copies "${table}${new}" "${folder}"/documents-*.copy
  copies "${table}_queries${new}" "${folder}"/queries-*.copy
  if [[ -n ${update} ]]; then cat "${folder}/update.sql"; else cat "${folder}/indexes.sql"; fi
  echo "COMMIT;"
  echo "VACUUM ANALYZE ${table}, ${table}_queries;"
}

if [[ -n ${dry_run} ]]; then
  statements
else
  statements | psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 ${database:+--dbname="${database}"}
fi
