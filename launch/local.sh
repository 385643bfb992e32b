#!/usr/bin/env bash
# Runs the whole job on this machine, in one process with all of its devices:
#   launch/local.sh [--dry_run] RUN MODEL_DIR [dsirm flags]
# RUN is a gin file below gin/runs, without .gin. Run again, it goes on where it stopped.
# --dry_run prints the command instead.
set -euo pipefail

dry_run=
if [[ ${1:-} == --dry_run ]]; then
  dry_run=1
  shift
fi
if [[ $# -lt 2 ]]; then
  echo "usage: $0 [--dry_run] RUN MODEL_DIR [dsirm flags], e.g. $0 demo out/demo --gin.SEED=1" >&2
  exit 2
fi
run=$1 model_dir=$2
shift 2
command=(dsirm run "--gin_file=gin/runs/${run}.gin" "--gin.MODEL_DIR='${model_dir}'" "$@")
if [[ -n ${dry_run} ]]; then
  echo "${command[*]@Q}"
else
  exec "${command[@]}"
fi
