"""What is generated from the code: the CRDs, and the field tables of `docs/api/`. `python -m generators` makes all."""
