"""Faces of other libraries over the same ops: change an import, keep the script."""
