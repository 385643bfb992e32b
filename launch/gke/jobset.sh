#!/usr/bin/env bash
# Runs the whole job on Google Kubernetes Engine as a JobSet:
#   launch/gke/jobset.sh [--dry_run] MANIFEST NAME RUN MODEL_DIR [dsirm flags]
# MANIFEST is tpu or gpu, see the .yaml files here; RUN a gin file below gin/runs, without .gin;
# MODEL_DIR and the tables lie below /mnt/share. A JobSet of this name that is there is left as it
# is. When nodes are taken away their processes save, and all start again from there.
# IMAGE is what launch/gke/Dockerfile makes; CLAIM a ReadWriteMany volume claim (Filestore), by
# default dsirm. Wants kubectl, and JobSet in the cluster:
#   kubectl apply --server-side -f https://github.com/kubernetes-sigs/jobset/releases/download/v0.8.1/manifests.yaml
# With xpk (https://github.com/AI-Hypercomputer/xpk) no manifest is needed, on a TPU slice:
#   xpk workload create --cluster=CLUSTER --workload=NAME --tpu-type=v5litepod-16 --docker-image=IMAGE \
#     --storage=CLAIM --max-restarts=30 --command="dsirm run --distributed --gin_file=... --gin.MODEL_DIR=..."
# --dry_run prints the manifest instead.
set -euo pipefail

dry_run=
if [[ ${1:-} == --dry_run ]]; then
  dry_run=1
  shift
fi
manifest="$(dirname "$0")/${1:-}.yaml"
if [[ $# -lt 4 || ! -f ${manifest} || ! $2 =~ ^[a-z]([a-z0-9-]{0,28}[a-z0-9])?$ ]]; then
  echo "usage: $0 [--dry_run] tpu|gpu NAME RUN MODEL_DIR [dsirm flags], e.g. $0 tpu first demo /mnt/share/demo" >&2
  exit 2
fi
name=$2
flags=("--gin_file=gin/runs/$3.gin" "--gin.MODEL_DIR='$4'" "${@:5}")

# shellcheck disable=SC2016  # the names in the manifest are no variables
filled() {
  local text flag json=
  for flag in "${flags[@]}"; do
    flag=${flag//\\/\\\\}
    json+=", \"${flag//\"/\\\"}\""
  done
  text=$(<"${manifest}")
  text=${text//'${NAME}'/"${name}"}
  text=${text//'${IMAGE}'/"${IMAGE:?see the head of $0}"}
  text=${text//'${CLAIM}'/"${CLAIM:-dsirm}"}
  printf '%s\n' "${text//'${FLAGS}'/"${json#, }"}"
}

if [[ -n ${dry_run} ]]; then
  filled
elif kubectl get jobset "${name}" >/dev/null 2>&1; then
  echo "JobSet ${name} is there already; kubectl delete jobset ${name} stops it"
else
  filled | kubectl apply -f -
fi
