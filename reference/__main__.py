"""python -m reference check   what is wrong with the built site"""

import sys
from collections.abc import Sequence
from pathlib import Path

from reference import site

PROJECT = Path(__file__).resolve().parent.parent


def main(arguments: Sequence[str]) -> int:
    """Runs the command that `arguments` name. Returns 0; 1 where the site has faults; 2 where there is none."""
    try:
        if list(arguments) != ["check"]:
            raise ValueError("give check")
        faults = site.faults(PROJECT)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print("\n".join(faults) or "the site has all its files, and loads none from another host")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
