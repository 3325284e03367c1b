"""The CUDA half without a GPU: ``check`` compiles it, ``mutate`` seeds the bugs of ``mutations`` into it."""
