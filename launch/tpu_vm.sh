#!/usr/bin/env bash
# Runs the whole job on a Cloud TPU slice, one process on each of its hosts:
#   launch/tpu_vm.sh [--dry_run] up NAME                                 a queued resource, installed
#   launch/tpu_vm.sh [--dry_run] run NAME RUN MODEL_DIR [dsirm flags]    starts the job on all hosts
#   launch/tpu_vm.sh [--dry_run] log NAME                                follows the first host's log
#   launch/tpu_vm.sh [--dry_run] stop NAME                               saves and stops
#   launch/tpu_vm.sh [--dry_run] down NAME                               gives the slice back
# Every command may be given again: what is there is left, and a job goes on where it stopped. The
# job is a service of each host, so it outlives this terminal; when a host is taken away systemd
# sends SIGTERM and waits GRACE seconds, time to save.
#
# Settings, by environment variables:
#   PROJECT, ZONE    where; gcloud's own settings when not set
#   ACCELERATOR      v5litepod-16, ...: `gcloud compute tpus accelerator-types list`
#   RUNTIME          v2-alpha-tpuv5-lite, ...: the image that goes with it
#   SPOT=1           cheaper, and taken away at any time
#   SHARE            NFS share that all hosts mount at /mnt/share (Filestore: 10.0.0.2:/share);
#                    MODEL_DIR and the tables lie below /mnt/share
#   GRACE            120 when not set
# Wants gcloud, and a checkout with what is to run committed: HEAD is copied to the hosts.
# --dry_run prints the commands instead.
set -euo pipefail

dry_run=
if [[ ${1:-} == --dry_run ]]; then
  dry_run=1
  shift
fi

usage() {
  sed -n '2,7s/^# \{0,1\}//p' "$0" >&2
  exit 2
}

action=${1:-} name=${2:-}
if [[ ! ${name} =~ ^[a-z][a-z0-9-]*$ ]]; then
  usage
fi
shift 2

where=(${PROJECT:+"--project=${PROJECT}"} ${ZONE:+"--zone=${ZONE}"})

do_it() {
  if [[ -n ${dry_run} ]]; then
    echo "${*@Q}"
  else
    "$@"
  fi
}

on_hosts() { # WORKER COMMAND
  do_it gcloud compute tpus tpu-vm ssh "${name}" "${where[@]}" "--worker=$1" "--command=$2"
}

state() {
  gcloud compute tpus queued-resources describe "${name}" "${where[@]}" \
    '--format=value(state.state)' 2>/dev/null || true
}

up() {
  local now=
  if [[ -z ${dry_run} ]]; then
    now=$(state)
  fi
  if [[ -z ${now} ]]; then
    do_it gcloud compute tpus queued-resources create "${name}" "--node-id=${name}" \
      "${where[@]}" "--accelerator-type=${ACCELERATOR:?see the head of $0}" \
      "--runtime-version=${RUNTIME:?see the head of $0}" ${SPOT:+--spot}
  fi
  while [[ -z ${dry_run} && ${now} != ACTIVE ]]; do
    case ${now} in
      FAILED | SUSPENDED | SUSPENDING)
        echo "$0: the slice is ${now}: launch/tpu_vm.sh down ${name}, then up again" >&2
        exit 1
        ;;
    esac
    echo "waiting for the slice: ${now:-requested}"
    sleep "${POLL:-30}"
    now=$(state)
  done
  local source
  source=$(mktemp -d)
  # shellcheck disable=SC2064  # the folder is known now, and local
  trap "rm -rf '${source}'" EXIT
  do_it git archive --format=tar.gz "--output=${source}/dsirm.tar.gz" HEAD
  do_it gcloud compute tpus tpu-vm scp "${source}/dsirm.tar.gz" "${name}:/tmp/dsirm.tar.gz" \
    "${where[@]}" --worker=all
  on_hosts all "set -e
    sudo apt-get install -qq -y nfs-common python3.11-venv
    mountpoint -q /mnt/share || {
      sudo mkdir -p /mnt/share
      sudo mount -t nfs ${SHARE:?see the head of $0} /mnt/share
    }
    rm -rf ~/dsirm && mkdir ~/dsirm && tar -xzf /tmp/dsirm.tar.gz -C ~/dsirm
    test -x ~/venv/bin/python || python3.11 -m venv ~/venv
    ~/venv/bin/pip install --quiet --constraint ~/dsirm/constraints.txt --editable ~/dsirm'[tpu]'"
}

run() { # RUN MODEL_DIR [dsirm flags]
  if [[ $# -lt 2 ]]; then
    usage
  fi
  local flags=("--gin_file=gin/runs/$1.gin" "--gin.MODEL_DIR='$2'" "${@:3}")
  on_hosts all "systemctl --quiet is-active dsirm || {
      sudo systemctl reset-failed dsirm 2>/dev/null
      sudo systemd-run --quiet --unit=dsirm --uid=\$(id -u) --property=TimeoutStopSec=${GRACE:-120} \
        --working-directory=\$HOME/dsirm \$HOME/venv/bin/dsirm run --distributed ${flags[*]@Q}
    }"
}

case ${action} in
  up) up ;;
  run) run "$@" ;;
  log) on_hosts 0 "journalctl --follow --output=cat --lines=100 --unit=dsirm" ;;
  stop) on_hosts all "sudo systemctl stop dsirm || true" ;;
  down)
    if [[ -n ${dry_run} || -n $(state) ]]; then
      do_it gcloud compute tpus queued-resources delete "${name}" "${where[@]}" --force --quiet
    fi
    ;;
  *) usage ;;
esac
