"""What the tensor cores give with Hopper's own instructions: ``python -m benchmarks.hopper``; study.cu says more."""
