"""The examples that close every --help."""

import click


def write_examples(formatter: click.HelpFormatter, examples: list[tuple[str, str]]) -> None:
    """Write (command line, what for) one under the other; unwrapped, so that they can be copied."""
    widest = max(len(line) for line, _ in examples)
    formatter.write(f"\nExample{'s' * (len(examples) > 1)}:\n")
    for line, purpose in examples:
        formatter.write(f"  {line:{widest}}  {purpose}\n")
