#!/usr/bin/env bash
# Runs the whole job on this machine: launch/local.sh RUN MODEL_DIR [dsirm flags].
# RUN is a gin file below gin/runs, without .gin.
set -euo pipefail

if [[ $# -lt 2 ]]; then
  echo "usage: $0 RUN MODEL_DIR [dsirm flags], e.g. $0 demo out/demo --gin.SEED=1" >&2
  exit 2
fi
run=$1 model_dir=$2
shift 2
exec dsirm run --gin_file="gin/runs/${run}.gin" --gin.MODEL_DIR="'${model_dir}'" "$@"
