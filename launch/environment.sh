#!/usr/bin/env bash
# Makes the virtual environment that `make` works in, with this checkout installed in it:
#   [PYTHON=python3.13] launch/environment.sh [--dry_run] VENV EXTRAS
# EXTRAS are those of setup.py, with commas between. PYTHON is a path, or a name, which is looked
# for on PATH and among the interpreters of pyenv and uv. When it is not set VENV keeps the one that
# it has, and a new VENV gets the first of python3, python3.13, python3.12 and python3.11 that will
# do. A VENV of another Python than asked for, or one that does not run, is made anew. What is
# installed and no older than setup.py and constraints.txt is left. uv installs where there is one,
# or where pip can bring it; pip does otherwise. --dry_run prints the commands instead.
set -euo pipefail

dry_run=
if [[ ${1:-} == --dry_run ]]; then
  dry_run=1
  shift
fi
if [[ $# -ne 2 ]]; then
  echo "usage: [PYTHON=python3.13] $0 [--dry_run] VENV EXTRAS, e.g. $0 .venv test" >&2
  exit 2
fi
venv=$1 extras=$2
cd "$(dirname "$0")/.."
trap 'exit 130' INT
trap 'exit 143' TERM
exec 3>&1

refuse() {
  echo "$0: $*" >&2
  exit 1
}

do_it() {
  if [[ -n ${dry_run} ]]; then
    echo "${*@Q}" >&3
  else
    "$@"
  fi
}

runs() { # COMMAND: shims of pyenv are there without what they stand for
  "$@" >/dev/null 2>&1 </dev/null
}

probe() { # INTERPRETER: prints its version and its path; nothing when it does not run
  "$1" -c 'import sys; print("%d.%d.%d %s" % (sys.version_info[:3] + (sys.executable,)))' \
    2>/dev/null </dev/null || true
}

will_do() { # VERSION
  [[ ${1%.*} == 3.1[123] ]]
}

places() { # NAME: prints the paths of what may be the interpreter
  if [[ $1 == */* ]]; then
    echo "$1"
    return
  fi
  type -aP "$1" || true
  if [[ $1 == python3.* ]]; then
    local path
    for path in "$(pyenv root 2>/dev/null || true)/versions/${1#python}".*[0-9]/bin/python; do
      [[ ! -x ${path} ]] || echo "${path}"
    done
    uv python find --system "${1#python}" 2>/dev/null || true
  fi
}

choose() { # NAME...: sets python and version to the first that will do
  local name path note found=()
  for name in "$@"; do
    note="no ${name}"
    while read -r path; do
      read -r version python <<<"$(probe "${path}")"
      if [[ -z ${version} ]]; then
        [[ ${note} != no\ * ]] || note="${path} does not run"
      elif will_do "${version}"; then
        return
      else
        note="Python ${version} (${python})"
      fi
    done < <(places "${name}")
    found+=("${note}")
  done
  printf -v found '%s, ' "${found[@]}"
  refuse "Python 3.11, 3.12 or 3.13 is needed; found: ${found%, }"
}

installed=${venv}/installed-${extras}
inside=${venv}/bin/python
current=
if [[ -f ${venv}/pyvenv.cfg ]]; then
  read -r current python <<<"$(probe "${inside}")"
fi
# Its scripts begin with the path that it was made in.
if [[ -f ${installed} && $(<"${installed}") != "${PWD}" ]]; then
  current=
fi
if [[ -n ${PYTHON:-} ]]; then
  choose "${PYTHON}"
elif will_do "${current}"; then
  version=${current}
else
  choose python3 python3.13 python3.12 python3.11
fi

uv=
if runs uv --version; then
  uv=uv
fi
if [[ ${current%.*} != "${version%.*}" ]]; then
  if [[ -e ${venv} && ! -f ${venv}/pyvenv.cfg && -n $(ls -A "${venv}") ]]; then
    refuse "${venv} is no virtual environment: remove it, or name another one"
  fi
  modules=venv
  if [[ -z ${uv} ]]; then
    modules+=,ensurepip
  fi
  if ! runs "${python}" -c "import ${modules}"; then
    refuse "${python} cannot import ${modules}: install the package python${version%.*}-venv, or uv"
  fi
  if [[ -e ${venv} || -L ${venv} ]]; then
    do_it rm -rf "${venv}"
  fi
  do_it "${python}" -m venv --without-pip "${venv}"
elif [[ -f ${installed} && ! setup.py -nt ${installed} &&
  ! constraints.txt -nt ${installed} ]]; then
  exit
fi

with_pip() {
  do_it "${inside}" -m pip install --quiet --constraint constraints.txt "$@"
}

# As pip does, uv is to compile what it installs: where Python may not write beside packages, as in many
# images, every process would compile all of TensorFlow anew, which takes longer than what it is to do.
with_uv() { # UV
  do_it "$1" pip install --quiet --compile-bytecode --python "${inside}" \
    --constraint constraints.txt --editable ".[${extras}]"
}

echo "$0: installing [${extras}] into ${venv}, Python ${version}" >&2
if [[ -f ${installed} ]]; then
  do_it rm "${installed}"
fi
if [[ -n ${uv} ]] && with_uv "${uv}"; then
  :
else
  if ! runs "${inside}" -m pip --version; then
    do_it "${inside}" -m ensurepip --default-pip >/dev/null
  fi
  # Indexes that only pip is told of are unknown to uv.
  if [[ -n ${uv} ]] || ! with_pip uv || ! with_uv "${venv}/bin/uv"; then
    echo "$0: uv could not, pip installs" >&2
    with_pip --editable ".[${extras}]"
  fi
fi
if [[ -z ${dry_run} ]]; then
  echo "${PWD}" >"${installed}"
fi
