#!/bin/sh
#SBATCH --job-name=farm
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=4
#SBATCH --time=01:00:00
# Slurm tells every process that the time is nearly over: servers drain then.
#SBATCH --signal=USR1@60
# sbatch slurm.sh my_program.py: a server on each node, and the program on the first one.
# All nodes read the token of your home folder.

set -eu
port=$((20000 + SLURM_JOB_ID % 20000))
srun remote-executor serve --host 0.0.0.0 --port "$port" --workers "$SLURM_CPUS_PER_TASK" &

REMOTE_EXECUTOR_ADDRESSES=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed "s/\$/:$port/" | paste -sd,)
export REMOTE_EXECUTOR_ADDRESSES
python "$@"
kill $!
