"""`python -m merhan` is the `merhan` command."""

from merhan.cli.main import main


if __name__ == "__main__":
    main()
