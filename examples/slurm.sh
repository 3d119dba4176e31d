#!/bin/bash
# sbatch examples/slurm.sh RECIPE RUN: four machines of eight GPUs; submitted again, it goes on where it stopped.
#SBATCH --job-name=lorakit
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=12:00:00
#SBATCH --signal=TERM@180
#SBATCH --open-mode=append

# RUN lies on a disk that all machines see. Three minutes before the time is over, every process is told to save.
set -euo pipefail
recipe=$1
run=$2
mapfile -t machines < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
what=("$recipe" -o "$run")
if [ -d "$run/checkpoints" ]; then what=(--resume -o "$run"); fi

# Each machine starts its own processes; only there is the number of the machine known.
export first=${machines[0]}
srun bash -c 'exec accelerate launch --config_file examples/accelerate/fsdp2.yaml \
  --num_machines "$SLURM_NNODES" --num_processes "$((SLURM_NNODES * 8))" --machine_rank "$SLURM_NODEID" \
  --main_process_ip "$first" --main_process_port 29500 -m lorakit train "$@"' lorakit "${what[@]}"
