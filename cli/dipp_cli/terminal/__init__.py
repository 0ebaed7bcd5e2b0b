"""What a person or a pipe sees: tables, progress, output, and sentences about command lines that cannot be parsed."""
