#!/usr/bin/env bash
# A sweep on several nodes of a Slurm cluster. From the repository, which all nodes see:
#   sbatch deploy/slurm.sh SWEEP_FILE NAME
# Options of sbatch before the file's name replace those below.
#
#SBATCH --job-name=gansweep
#SBATCH --nodes=2
# One task a node: Ray starts the processes.
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --gpus-per-node=4
# Whole nodes: `ray symmetric-run` ends every Ray process of the user on a node when it is done.
#SBATCH --exclusive
#SBATCH --mem=0
#SBATCH --time=24:00:00
# Ten minutes before the end, Slurm sends a signal to this script alone. A shorter --time would pause the sweep at once.
#SBATCH --signal=B:USR1@600
# Slurm may take the nodes away and queue the job again; so does this script when the time is up.
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
set -euo pipefail

file=${1:?expected: sbatch deploy/slurm.sh SWEEP_FILE NAME}
name=${2:?expected: sbatch deploy/slurm.sh SWEEP_FILE NAME}
# On a file system that all nodes see.
root=${GANSWEEP_HOME:-$PWD/runs}

# shellcheck source=/dev/null
source "${GANSWEEP_VENV:-.venv}/bin/activate"

# All users of the cluster reach its nodes. Ray listens only to those who have this user's token, in ~/.ray/auth_token.
export RAY_AUTH_MODE=token
(umask 077 && ray get-auth-token --generate >/dev/null)

# `scancel` and preemption send SIGTERM, and SIGKILL after KillWait (30 s by default) or the partition's GraceTime.
export GANSWEEP_GRACE=${GANSWEEP_GRACE:-20}

# Seconds until all nodes must have joined.
export RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT=300
# This script runs on the first node, which becomes the head. It is named by an address, since many machines take their
# own name for 127.0.1.1. If its first address is in the wrong network, GANSWEEP_HEAD names another.
read -r head _ <<<"${GANSWEEP_HEAD:-$(hostname -I)}"

# shellcheck disable=SC2329
on_each_node() {
    if [[ ${GANSWEEP_MPS:-0} == 1 ]]; then
        # For trials that share a GPU (resources.trials_per_gpu). Here, since it ends with its node's step.
        deploy/mps.sh start
        eval "$(deploy/mps.sh env)"
        trap 'deploy/mps.sh stop' EXIT
    fi
    ray symmetric-run "$@"
}
# `ray symmetric-run` is itself connected to the cluster that it ends, and may fail for that alone when the driver has
# done well. So the driver's own exit code is written down; the head is this node.
driver_code=$(mktemp)
export driver_code
# shellcheck disable=SC2329
drive() {
    local code=0
    "$@" || code=$?
    echo "$code" >"$driver_code"
    return "$code"
}
export -f on_each_node drive

queue_again=
# shellcheck disable=SC2329
leave() {
    echo "the time is nearly up: the sweep is paused after the rungs under way, and queued again"
    queue_again=yes
    # A rung that takes longer than eight minutes is trained again from the one before.
    (sleep 480 && scontrol requeue "$SLURM_JOB_ID") &
    gansweep pause "$name" --root "$root" || true
}
trap leave USR1

# Launching a sweep that exists goes on with it, so the same job serves every try.
# shellcheck disable=SC2016
srun --cpus-per-task="$SLURM_CPUS_PER_TASK" --kill-on-bad-exit=1 bash -c 'on_each_node "$@"' on_each_node \
    --address "$head:6379" \
    --min-nodes "$SLURM_JOB_NUM_NODES" \
    --num-cpus="$SLURM_CPUS_PER_TASK" \
    --num-gpus="${SLURM_GPUS_ON_NODE:-0}" \
    -- bash -c 'drive "$@"' drive gansweep launch "$file" --address auto --name "$name" --root "$root" &
step=$!

code=0
wait "$step" || code=$?
if [[ $queue_again ]]; then
    # The signal ended that wait, not the step.
    code=0
    wait "$step" || code=$?
fi
if [[ -s $driver_code ]]; then
    code=$(<"$driver_code")
fi
if [[ $queue_again ]]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
