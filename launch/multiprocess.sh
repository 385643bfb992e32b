#!/usr/bin/env bash
# Runs the whole job in N processes on this machine, as a pod would in as many hosts:
#   launch/multiprocess.sh [--dry_run] N RUN MODEL_DIR [dsirm flags]
# RUN is a gin file below gin/runs, without .gin. On a machine with GPUs each process has one of
# them. The first process writes to the terminal, the others to MODEL_DIR/processes/K.log. When one
# fails the others are stopped; Ctrl-C and SIGTERM save and stop all. Run again, it goes on where it
# stopped. PORT is where the processes meet, a free one when not set; GRACE is how many seconds they
# have to stop, 120 when not set. --dry_run prints the commands instead.
set -euo pipefail

dry_run=
if [[ ${1:-} == --dry_run ]]; then
  dry_run=1
  shift
fi
if [[ $# -lt 3 || ! $1 =~ ^[1-9][0-9]*$ ]]; then
  echo "usage: $0 [--dry_run] N RUN MODEL_DIR [dsirm flags], e.g. $0 2 demo out/demo" >&2
  exit 2
fi
processes=$1 run=$2 model_dir=$3
shift 3

free_port() {
  python3 -c 'import socket; s = socket.socket(); s.bind(("localhost", 0)); print(s.getsockname()[1])'
}

command=(dsirm run --distributed "--gin_file=gin/runs/${run}.gin")
command+=("--gin.MODEL_DIR='${model_dir}'" "$@")
address="localhost:${PORT:-${dry_run:+PORT}}"
if [[ ${address} == localhost: ]]; then
  address+=$(free_port)
fi

if [[ -z ${dry_run} ]]; then
  mkdir -p "${model_dir}/processes"
fi
started=()
stop_all() {
  kill -TERM "${started[@]}" 2>/dev/null || true
  if [[ -z ${killer:-} ]]; then
    (sleep "${GRACE:-120}" && kill -KILL "${started[@]}") >/dev/null 2>&1 &
    killer=$!
    disown
  fi
}
trap stop_all INT TERM
trap '[[ -z ${killer:-} ]] || kill "${killer}" 2>/dev/null || true' EXIT

for ((id = 0; id < processes; id++)); do
  settings=("JAX_COORDINATOR_ADDRESS=${address}" "JAX_NUM_PROCESSES=${processes}")
  settings+=("JAX_PROCESS_ID=${id}" "JAX_LOCAL_DEVICE_IDS=${id}")
  if [[ -n ${dry_run} ]]; then
    echo "env ${settings[*]@Q} ${command[*]@Q}"
  elif [[ ${id} == 0 ]]; then
    env "${settings[@]}" "${command[@]}" &
    started+=($!)
  else
    env "${settings[@]}" "${command[@]}" >>"${model_dir}/processes/${id}.log" 2>&1 &
    started+=($!)
  fi
done

worst=0
while [[ -n $(jobs -p) ]]; do
  code=0
  wait -n || code=$?
  if [[ ${code} != 0 && ${worst} == 0 ]]; then
    worst=${code}
    stop_all
  fi
done
exit "${worst}"
