"""``python -m fsmount``: the same as the console script."""

from fsmount.cli.main import main

if __name__ == "__main__":
    main()
