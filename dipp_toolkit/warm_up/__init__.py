"""How the assistant is made ready: where it starts, how long it is warmed up, and which times it learns."""
