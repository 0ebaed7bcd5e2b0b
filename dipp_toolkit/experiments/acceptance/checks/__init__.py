"""One check a file: each has a `CHECK`, which is found by its being here."""
