"""`python -m rediffuse`, for torchrun."""

from rediffuse.cli import main

if __name__ == "__main__":
    main()
