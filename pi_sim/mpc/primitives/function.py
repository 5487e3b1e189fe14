"""What a function by pieces is: lines, and one short Fourier series, between thresholds."""
