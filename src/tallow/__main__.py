"""``python -m tallow`` is the ``tallow`` command."""

import sys

from tallow.cli import main

if __name__ == "__main__":
    sys.exit(main())
