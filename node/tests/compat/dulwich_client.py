"""The network operations of dulwich, one a call: what to do and its arguments come on the command line."""

import io
import sys

import dulwich
from dulwich import porcelain

NOWHERE = io.BytesIO()


def clone(url, directory, depth=None):
    porcelain.clone(url, directory, depth=int(depth) if depth else None, errstream=NOWHERE).close()


def fetch(directory):
    porcelain.fetch(directory, "origin", quiet=True, errstream=NOWHERE)


def deepen(directory, depth):
    porcelain.fetch(directory, "origin", depth=int(depth), quiet=True, errstream=NOWHERE)


def push(directory, url, flags, *refspecs):
    result = porcelain.push(
        directory,
        url,
        list(refspecs),
        force="force" in flags,
        atomic="atomic" in flags,
        outstream=NOWHERE,
        errstream=NOWHERE,
    )
    refused = {name: reason for name, reason in (result.ref_status or {}).items() if reason}
    if refused:
        raise SystemExit(f"refused: {refused}")


def ls(url):
    for name in porcelain.ls_remote(url).refs:
        print(name.decode())


def version():
    print(".".join(map(str, dulwich.__version__)))


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
