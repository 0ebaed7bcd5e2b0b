"""The diagnostics, one idea a file; defining `DIAGNOSTICS` here is all that it takes to add one, see `diagnostic`."""
