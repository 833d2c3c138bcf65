"""``python -m ccsam_hf COMMAND``: the same as ``ccsam-hf COMMAND``."""

from .cli import main

if __name__ == "__main__":
    main()
