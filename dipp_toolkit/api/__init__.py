"""What a script or a notebook calls: training, drawing, scoring and comparing with names and objects alike."""
