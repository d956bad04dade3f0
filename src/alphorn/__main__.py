"""`python -m alphorn script.py [arguments]` runs a program that was written for Keras."""

import sys

from alphorn.legacy import run_module, run_script

USAGE = """usage: python -m alphorn script.py [arguments]
       python -m alphorn -m module [arguments]

Runs a program in which `import keras`, `from tensorflow.keras...` and the module paths of Keras 2
mean Alphorn; nothing is changed outside this process."""


def main(arguments: list[str]) -> None:
    """Runs what the arguments of the command name."""
    if not arguments or arguments[0] in ("-h", "--help") or arguments == ["-m"]:
        print(USAGE)
        sys.exit(0 if arguments and arguments[0] != "-m" else 2)
    if arguments[0] == "-m":
        run_module(arguments[1], arguments[2:])
    else:
        run_script(arguments[0], arguments[1:])


if __name__ == "__main__":
    main(sys.argv[1:])
