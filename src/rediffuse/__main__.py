"""`python -m rediffuse`, for torchrun."""

import sys

# Python puts the working directory first, where a file of it could replace any module
if not sys.flags.safe_path:
    sys.path.append(sys.path.pop(0))

from rediffuse.cli import main

if __name__ == "__main__":
    main()
