"""What every launch script would do, and does, with stand-ins for the tools of the clusters."""

import math
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

LAUNCH = Path("launch")
SCRIPTS = sorted(
    path for path in LAUNCH.rglob("*") if path.suffix in (".sh", ".sbatch") and path.is_file()
)
STAND_IN = """#!/usr/bin/env bash
echo "${0##*/} ${*@Q}" >>"$CALLS"
[[ $* == *' describe '* && -f $CALLS.state ]] && cat "$CALLS.state"
[[ $* == *' create '* ]] && echo ACTIVE >"$CALLS.state"
[[ $* == *' delete '* ]] && rm "$CALLS.state"
[[ $1 == get && ! -f $CALLS.state ]] && exit 1
[[ $1 == apply ]] && cat >"$CALLS.state"
[[ ${0##*/} == srun ]] && exit "${SRUN_EXIT:-0}"
exit 0
"""


@pytest.fixture
def launch(tmp_path):
    """Returns a function that runs a script and gives its exit code, its output and its calls."""
    for name in ("gcloud", "kubectl", "srun", "scontrol", "git"):
        (tmp_path / name).write_text(STAND_IN)
        (tmp_path / name).chmod(0o755)
    calls = tmp_path / "calls"

    def run(script, *arguments, **settings):
        calls.write_text("")
        done = subprocess.run(
            [LAUNCH / script, *arguments],
            env={"PATH": f"{tmp_path}:{os.environ['PATH']}", "CALLS": str(calls), **settings},
            capture_output=True,
            text=True,
            timeout=3600,
        )
        return done, calls.read_text().splitlines()

    return run


def words(line):
    return shlex.split(line, comments=True)


def test_the_scripts_are_clean():
    assert len(SCRIPTS) == 7
    here = str(Path(sys.executable).parent)  # where pip installs it
    shellcheck = shutil.which("shellcheck", path=os.pathsep.join([here, os.environ["PATH"]]))
    subprocess.run([shellcheck, *SCRIPTS, ".ci/run"], check=True)


@pytest.mark.parametrize("script", SCRIPTS, ids=str)
def test_every_script_is_documented_and_tells_its_usage(script, launch):
    head = script.read_text().split("set -euo pipefail")[0]
    assert f"{script} [--dry_run]" in head or f"{script} --dry_run" in head
    assert os.access(script, os.X_OK)
    done, calls = launch(script.relative_to(LAUNCH))
    assert done.returncode == 2 and not calls
    assert "--dry_run" in done.stderr


def test_postgres_load(launch, tmp_path):
    (tmp_path / "schema.sql").write_text("CREATE TABLE my_items_queries (\n")
    (tmp_path / "indexes.sql").write_text("CREATE INDEX;\n")
    (tmp_path / "update.sql").write_text("INSERT;\n")
    for name in ("documents-0", "documents-1", "queries-0"):
        (tmp_path / f"{name}.copy").touch()
    done, _ = launch("postgres/load.sh", "--dry_run", str(tmp_path))
    assert done.stdout.splitlines() == [
        "BEGIN;",
        "CREATE TABLE my_items_queries (",
        f"\\copy my_items from '{tmp_path}/documents-0.copy'",
        f"\\copy my_items from '{tmp_path}/documents-1.copy'",
        f"\\copy my_items_queries from '{tmp_path}/queries-0.copy'",
        "CREATE INDEX;",
        "COMMIT;",
        "VACUUM ANALYZE my_items, my_items_queries;",
    ]
    done, _ = launch("postgres/load.sh", "--update", "--dry_run", str(tmp_path))
    assert done.stdout.splitlines() == [
        "BEGIN;",
        "CREATE TEMPORARY TABLE my_items_new (LIKE my_items) ON COMMIT DROP;",
        "CREATE TEMPORARY TABLE my_items_queries_new (LIKE my_items_queries) ON COMMIT DROP;",
        f"\\copy my_items_new from '{tmp_path}/documents-0.copy'",
        f"\\copy my_items_new from '{tmp_path}/documents-1.copy'",
        f"\\copy my_items_queries_new from '{tmp_path}/queries-0.copy'",
        "INSERT;",
        "COMMIT;",
        "VACUUM ANALYZE my_items, my_items_queries;",
    ]
    assert launch("postgres/load.sh", "--upgrade", str(tmp_path))[0].returncode == 2


def test_local(launch):
    done, _ = launch("local.sh", "--dry_run", "demo", "out/x y", "--gin.SEED=1")
    assert words(done.stdout) == [
        *("dsirm", "run", "--gin_file=gin/runs/demo.gin", "--gin.MODEL_DIR='out/x y'"),
        "--gin.SEED=1",
    ]


def test_processes_differ_in_their_number_alone(launch, tmp_path):
    out = tmp_path / "out"
    done, _ = launch("multiprocess.sh", "--dry_run", "3", "demo", str(out), PORT="1234")
    assert not out.exists()
    lines = [words(line) for line in done.stdout.splitlines()]
    assert [line[3:5] for line in lines] == [
        [f"JAX_PROCESS_ID={number}", f"JAX_LOCAL_DEVICE_IDS={number}"] for number in range(3)
    ]
    for line in lines:
        assert line[:3] == ["env", "JAX_COORDINATOR_ADDRESS=localhost:1234", "JAX_NUM_PROCESSES=3"]
        assert line[5:8] == ["dsirm", "run", "--distributed"]


def test_a_process_that_fails_stops_the_others(launch, tmp_path):
    dsirm = tmp_path / "dsirm"
    # The second fails once the third has begun, whichever is started sooner.
    dsirm.write_text("""#!/usr/bin/env bash
trap 'exit 143' TERM
if [[ $JAX_PROCESS_ID == 1 ]]; then
  until [[ -e ${0%/*}/out/processes/2.log ]]; do sleep 0.1; done
  exit 7
fi
for _ in {1..36000}; do sleep 0.1; done
""")
    dsirm.chmod(0o755)
    done, _ = launch("multiprocess.sh", "3", "demo", str(tmp_path / "out"))
    assert done.returncode == 7
    assert (tmp_path / "out/processes/2.log").exists()


def test_a_slice_is_asked_for_once(launch):
    settings = {"ACCELERATOR": "v5litepod-16", "RUNTIME": "r", "SHARE": "10.0.0.2:/s"}
    settings |= {"PROJECT": "p", "ZONE": "z", "POLL": "0"}
    done, calls = launch("tpu_vm.sh", "--dry_run", "up", "first", **settings)
    assert done.returncode == 0 and not calls
    assert "'--accelerator-type=v5litepod-16'" in done.stdout
    for times in (1, 0):
        done, calls = launch("tpu_vm.sh", "up", "first", **settings)
        assert done.returncode == 0, done.stderr
        assert sum(" 'create' " in call for call in calls) == times
        assert "'--project=p' '--zone=z'" in calls[0]
    done, calls = launch("tpu_vm.sh", "run", "first", "demo", "/mnt/share/x", "--gin.SEED=1")
    assert "dsirm run --distributed" in calls[0] and "is-active dsirm ||" in calls[0]
    for times in (1, 0):
        done, calls = launch("tpu_vm.sh", "down", "first")
        assert done.returncode == 0, done.stderr
        assert sum(" 'delete' " in call for call in calls) == times


@pytest.mark.parametrize("code", [0, 1, 143])
def test_a_job_that_saved_queues_again(launch, code):
    done, calls = launch(
        "slurm/train.sbatch", "demo", "/s/x", SRUN_EXIT=str(code), SLURM_JOB_ID="17"
    )
    assert done.returncode == code
    assert words(calls[0])[-2:] == ["--gin_file=gin/runs/demo.gin", "--gin.MODEL_DIR='/s/x'"]
    assert calls[1:] == (["scontrol 'requeue' '17'"] if code == 143 else [])
    assert not launch("slurm/train.sbatch", "--dry_run", "demo", "/s/x")[1]


@pytest.mark.parametrize("kind", ["tpu", "gpu"])
def test_manifests_are_those_of_a_jobset(launch, kind):
    flags = ["demo", "/mnt/share/x", '--gin.A="b\\n"']
    given = ("gke/jobset.sh", "--dry_run", kind, "first", *flags)
    done, calls = launch(*given, IMAGE="registry/dsirm:1")
    assert done.returncode == 0 and not calls
    assert "${" not in done.stdout.split("apiVersion")[1]
    manifest = yaml.safe_load(done.stdout)
    assert (manifest["apiVersion"], manifest["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    assert manifest["metadata"]["name"] == "first"
    assert set(manifest["spec"]) <= {"failurePolicy", "network", "replicatedJobs"}
    policy = manifest["spec"]["failurePolicy"]
    assert policy["maxRestarts"] > 0
    assert policy["rules"] == [
        {"action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"]}
    ]
    (job,) = manifest["spec"]["replicatedJobs"]
    assert set(job) == {"name", "replicas", "template"}
    work = job["template"]["spec"]
    assert work["parallelism"] == work["completions"] > 1
    assert (work["completionMode"], work["backoffLimit"]) == ("Indexed", 0)
    pod = work["template"]["spec"]
    assert pod["restartPolicy"] == "Never"  # what a podFailurePolicy wants
    assert pod["terminationGracePeriodSeconds"] >= 60
    (container,) = pod["containers"]
    (rule,) = work["podFailurePolicy"]["rules"]
    assert rule["onExitCodes"] == {"containerName": "dsirm", "operator": "In", "values": [2]}
    assert (container["name"], container["image"]) == ("dsirm", "registry/dsirm:1")
    assert container["command"] == [
        *("dsirm", "run", "--distributed", "--gin_file=gin/runs/demo.gin"),
        *("--gin.MODEL_DIR='/mnt/share/x'", '--gin.A="b\\n"'),
    ]
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}
    (resource,) = container["resources"]["limits"]
    assert resource == {"tpu": "google.com/tpu", "gpu": "nvidia.com/gpu"}[kind]
    if kind == "tpu":
        topology = pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"]
        chips = container["resources"]["limits"][resource] * work["completions"]
        assert math.prod(map(int, topology.split("x"))) == chips
    else:
        environment = {entry["name"]: entry for entry in container["env"]}
        assert environment["JAX_NUM_PROCESSES"]["value"] == str(work["completions"])
        address, port = environment["JAX_COORDINATOR_ADDRESS"]["value"].split(":")
        assert address == f"first-{job['name']}-0-0.first"
        assert {"containerPort": int(port)} in container["ports"]
        path = environment["JAX_PROCESS_ID"]["valueFrom"]["fieldRef"]["fieldPath"]
        assert path == "metadata.annotations['batch.kubernetes.io/job-completion-index']"


def test_a_jobset_is_applied_once(launch):
    for times in (1, 0):
        done, calls = launch("gke/jobset.sh", "gpu", "first", "demo", "/mnt/share/x", IMAGE="i")
        assert done.returncode == 0, done.stderr
        assert sum("'apply'" in call for call in calls) == times
