"""One module per command, each with `register(app)`.

They import typer alone; the toolkit is imported when a command runs.
"""
