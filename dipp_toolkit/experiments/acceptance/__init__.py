"""`dipp accept`: what a person with the real weights runs to see, and to show, that a published name works.

A check is one file of `checks/`; what it found is one or more rows of a table and of a JSON row that can be sent in.
"""
