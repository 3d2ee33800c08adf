"""The `mlpk` command: parse, call the library, print. Nothing in `mlpkernels` imports it."""
