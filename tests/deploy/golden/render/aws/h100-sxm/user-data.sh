#!/bin/bash
set -euo pipefail
umask 077
planned='1 of H100-SXM'
wrong() {
  echo "hgpu: $1 where $planned was planned: shutting down" >&2
  shutdown -h now
  exit 1
}
gpus=$(nvidia-smi --query-gpu=name,memory.total --format=csv,noheader) || wrong "nvidia-smi fails"
count=0
while IFS=, read -r name memory; do
  case $name in 'NVIDIA H100 80GB HBM3') ;; *) wrong "a GPU '$name'" ;; esac
  mib=${memory//[!0-9]/}
  (( ${mib:-0} >= 77483 )) || wrong "a $name with '$memory'"
  count=$((count + 1))
done <<< "$gpus"
(( count == 1 )) || wrong "$count GPUs"
echo "hgpu: the GPUs are as planned: $planned"
mkdir -p /run/hgpu /var/lib/hgpu/cache
aws secretsmanager get-secret-value --region us-east-1 --secret-id hgpu-secrets --query SecretString --output text > /run/hgpu/secrets  # NAME=value lines
docker run --detach --restart always --name engine-0 --gpus '"device=0"' --ipc host --env-file /run/hgpu/secrets --env HF_HOME=/cache --volume /var/lib/hgpu/cache:/cache --publish 8000:8000 --entrypoint python3 vllm/vllm-openai:v0.26.0 -m vllm.entrypoints.openai.api_server --model meta-llama/Llama-3.1-8B-Instruct --dtype bfloat16 --tensor-parallel-size 1 --max-model-len 8192 --max-num-batched-tokens 2048 --max-num-seqs 256 --no-enforce-eager --load-format auto --gpu-memory-utilization 0.9 --served-model-name meta-llama/Llama-3.1-8B-Instruct --host 0.0.0.0 --port 8000 --disable-access-log-for-endpoints /health,/metrics
