"""`dipp verify --thorough`: six correlated dimensions, the processes and weightings that people use, and `train()`."""
