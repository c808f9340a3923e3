#!/usr/bin/env bash
# leave.sh [SECONDS]: for a machine that is about to be taken away. Tells Ray, so that its trials end at their next rung
# and go on elsewhere, and waits until the machine is empty, at most SECONDS (100).
set -euo pipefail

seconds=${1:-100}

# Without --node-id it is this node. Nothing new is placed here from now on.
ray drain-node --reason DRAIN_NODE_REASON_PREEMPTION --reason-message "the machine is taken away" \
    --deadline-remaining-seconds "$seconds"

# A node that was told to leave ends by itself once it is empty. Whoever called this ends it if it does not.
end=$((SECONDS + seconds))
while ((SECONDS < end)) && grep -qs '^raylet$' /proc/[0-9]*/comm; do
    sleep 1
done
