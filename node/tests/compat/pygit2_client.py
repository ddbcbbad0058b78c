"""The network operations of pygit2 (libgit2), one a call: what to do and its arguments come on the command line."""

import sys

import pygit2


class Callbacks(pygit2.RemoteCallbacks):
    """Remembers what the server refused: libgit2 tells it ref by ref."""

    def __init__(self):
        super().__init__()
        self.refused = {}

    def push_update_reference(self, refname, message):
        if message is not None:
            self.refused[refname] = message


def clone(url, directory, depth="0"):
    pygit2.clone_repository(url, directory, depth=int(depth))


def fetch(directory):
    pygit2.Repository(directory).remotes["origin"].fetch()


def deepen(directory, depth):
    pygit2.Repository(directory).remotes["origin"].fetch(depth=int(depth))


def push(directory, url, flags, *refspecs):
    assert "atomic" not in flags
    callbacks = Callbacks()
    force = "+" if "force" in flags else ""
    remote = pygit2.Repository(directory).remotes.create_anonymous(url)
    remote.push([force + refspec for refspec in refspecs], callbacks=callbacks)
    if callbacks.refused:
        raise SystemExit(f"refused: {callbacks.refused}")


def ls(url):
    empty = pygit2.init_repository("ls.git", bare=True)
    for head in empty.remotes.create_anonymous(url).list_heads():
        print(head.name)


def version():
    print(f"{pygit2.__version__} (libgit2 {pygit2.LIBGIT2_VERSION})")


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
