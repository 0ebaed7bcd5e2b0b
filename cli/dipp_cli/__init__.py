"""The command line of dipp-toolkit: `dipp`, or `python -m dipp_cli`.

One file per command in `dipp_cli.commands`; a new command is a new file there and nothing else. The commands hold no
logic of their own: they turn words into settings, call the toolkit, and show what came back.
"""
