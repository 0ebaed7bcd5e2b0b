"""What the commands do: one module for each command of the same name; it calls the toolkit and shows the answer."""
