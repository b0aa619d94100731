"""``python -m dwnet COMMAND``."""
import argparse
import sys


def main() -> None:
    parser = argparse.ArgumentParser(
        prog='python -m dwnet',
        epilog='example: python -m dwnet doctor',
        description='DWNet for OpenMMLab')
    parser.add_argument(
        'command', choices=['doctor'], help='doctor: what is installed, what is missing, what to do')
    parser.parse_args()
    from dwnet.doctor import report
    sys.exit(1 if report() else 0)


if __name__ == '__main__':
    main()
