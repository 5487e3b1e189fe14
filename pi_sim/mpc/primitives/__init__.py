"""Building blocks of our kernels: functions of bare shares, each a few rounds long, that take a `Runtime` first.

`ring` and `truncation` handle fixed point, `beaver` products, `comparison` intervals, `fourier` series, `piecewise`
functions of one number, `rows` reciprocals, norms and ragged rows, `onehot` lookups.

Letters that the modules use without further notice:

    x      a secret value; `share` is this party's additive share of it
    r      a uniformly random mask that nobody knows, of which the dealer shares functions
    m      the opened x + r (or x - r): public
    i      a secret bit: 1 where x lies in an interval
    p      a random bit that the dealer shares, additively and by XOR; z = i ^ p is opened
    a, b   the factors of a product; A, B are their masks
    v, t   a positive number, and the same normalised into a short interval
    u      the value of one piece of a function
    W, e   a fixed table or weight (V, d), opened under the mask B, and a one-hot vector (V) that selects a row
    n, T   the numbers of elements and of thresholds

All secrets are fixed-point numbers of `ring.FRACTION_BITS` bits of fraction unless a docstring says otherwise. Rounds
and bytes are those that one party sends; offline bytes are those that a dealer sends to party 0.
"""
