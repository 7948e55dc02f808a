#!/usr/bin/env bash
# Runs a command with one AMD GPU of the node visible, that of its local rank.
export ROCR_VISIBLE_DEVICES=$SLURM_LOCALID
exec "$@"
