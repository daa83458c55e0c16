"""The command: as a script, and as `python -m quotagate` for where the script is not on the PATH."""


def main() -> None:
    # A worker's process imports this module again (multiprocessing's way to spawn), and needs no command line.
    from quotagate.main import app

    app(prog_name="quotagate")


if __name__ == "__main__":
    main()
