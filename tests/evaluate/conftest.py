from runs import run, trained

__all__ = ["run", "trained"]
