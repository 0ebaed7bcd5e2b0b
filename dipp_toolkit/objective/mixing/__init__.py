"""How several rewards become one gradient: scale statistics, clipping, balancing, and floors."""
