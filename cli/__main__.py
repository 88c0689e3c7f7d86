"""``python -m pitstop.cli``: the ``pitstop`` command where its script is not on the path."""

import sys

from pitstop.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
