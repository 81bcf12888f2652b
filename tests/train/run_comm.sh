#!/usr/bin/env bash
# The operations of a communicator, in one process, over MPI and over TCP.
. "$(dirname "$0")/run_lib.sh"

check "one process" "$tools/test_comm" cpu
for ranks in 1 2 3 4 6; do
    check "$ranks ranks" "$mpirun" --oversubscribe --bind-to none -np "$ranks" "$tools/test_comm" cpu
done
for ranks in 1 2 4; do
    check "$ranks ranks without MPI" env TMD_RENDEZVOUS="file://$scratch/meeting" \
        "$mpirun" --oversubscribe --bind-to none -np "$ranks" "$tools/test_comm" cpu
done
passed
