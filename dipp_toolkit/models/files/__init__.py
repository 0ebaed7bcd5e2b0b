"""The files of models: pipeline folders and hub repositories, which weights are read, and what is refused."""
