"""`python -m syncagent`: the sync agent's commands, `run` among them."""

from syncagent.cli import main

if __name__ == "__main__":
    main()
