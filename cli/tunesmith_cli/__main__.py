"""`python -m tunesmith_cli`: the same as `tunesmith`."""

from tunesmith_cli.main import main

if __name__ == "__main__":
    main()
