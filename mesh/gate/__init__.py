"""What governed programs use: connect, guard, execution, run."""

__all__: list[str] = []
