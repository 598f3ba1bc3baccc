"""Images and the heavy environment, built on one machine with no registry and no Docker.

base (a root file system) -> engine (vLLM and the training libraries, made inside it) and images (our Dockerfiles,
built on it by buildah). Everything is cached by the hash of what it is made from.
"""
