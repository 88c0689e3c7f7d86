"""One LoRA workload on Pitstop and on TRL's SFTTrainer, interleaved, each run in a fresh process."""
