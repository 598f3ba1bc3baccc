"""What the tools of hack/ ask of this machine: a cache, Debian packages, programs, archives, and one look of progress.

Below `imagebuild` and `localcluster`, which know nothing of each other.
"""
