"""``python -m pitstop.cli``: the ``pitstop`` command where its script is not on the path."""

from pitstop.cli.main import run

if __name__ == "__main__":
    run()
