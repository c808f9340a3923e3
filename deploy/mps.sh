#!/usr/bin/env bash
# mps.sh start|stop|status|env: Nvidia's MPS daemon for this user on this machine. MPS lets the kernels of several
# processes run on one GPU at the same time; without it they take turns. Each command may be given twice.
#
# `eval "$(mps.sh env)"` tells CUDA programs where the daemon is. If there is none, they run without it.
set -euo pipefail

# A folder per user: users of one machine must not meet in it. CUDA's programs read the same two variables.
export CUDA_MPS_PIPE_DIRECTORY=${CUDA_MPS_PIPE_DIRECTORY:-/tmp/nvidia-mps-$(id -u)}
export CUDA_MPS_LOG_DIRECTORY=${CUDA_MPS_LOG_DIRECTORY:-$CUDA_MPS_PIPE_DIRECTORY/log}

die() {
    echo "mps.sh: $*" >&2
    exit 1
}

ask() {
    echo "$1" | nvidia-cuda-mps-control
}

running() {
    [[ -d $CUDA_MPS_PIPE_DIRECTORY ]] && ask get_server_list >/dev/null 2>&1
}

case ${1:-} in
    start)
        if running; then
            echo "MPS is at work in $CUDA_MPS_PIPE_DIRECTORY already"
            exit
        fi
        command -v nvidia-cuda-mps-control >/dev/null ||
            die "nvidia-cuda-mps-control is missing: it comes with Nvidia's driver for Linux"
        mkdir -p "$CUDA_MPS_PIPE_DIRECTORY" "$CUDA_MPS_LOG_DIRECTORY"
        # Who can write to the pipe can run kernels.
        chmod 700 "$CUDA_MPS_PIPE_DIRECTORY"
        nvidia-cuda-mps-control -d
        running || die "the daemon does not answer; see $CUDA_MPS_LOG_DIRECTORY/control.log"
        echo "MPS is at work in $CUDA_MPS_PIPE_DIRECTORY"
        ;;
    stop)
        if ! running; then
            echo "no MPS in $CUDA_MPS_PIPE_DIRECTORY"
            exit
        fi
        # Waits for the programs that use it; they would lose their GPU.
        ask quit
        echo "MPS has ended"
        ;;
    status)
        running || die "no MPS in $CUDA_MPS_PIPE_DIRECTORY"
        echo "MPS is at work in $CUDA_MPS_PIPE_DIRECTORY"
        ;;
    env)
        printf 'export CUDA_MPS_PIPE_DIRECTORY=%q CUDA_MPS_LOG_DIRECTORY=%q\n' \
            "$CUDA_MPS_PIPE_DIRECTORY" "$CUDA_MPS_LOG_DIRECTORY"
        ;;
    *)
        die "expected start, stop, status or env, got '${1:-}'"
        ;;
esac
