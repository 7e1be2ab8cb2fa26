"""Speed and memory of LoRA on this machine's CPU, beside other trainers: `make bench-train`."""
