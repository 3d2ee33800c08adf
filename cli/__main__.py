"""`python -m mlpkernels_cli` is the `mlpk` command."""

from .main import main

if __name__ == "__main__":
    main()
