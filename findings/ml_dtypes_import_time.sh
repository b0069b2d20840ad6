#!/bin/sh
# Importing ml_dtypes 0.7.0 takes about half a second, where 0.6.0 and every release of 0.5 take 3 to 5 ms: seven times
# what NumPy itself takes. A profile shows NumPy's PyUFunc_AddLoop, which compares each new loop of a ufunc with all that
# the ufunc has: the time grows with the square of the loops that are registered. The wheel gives no sign of it: it is
# 20 % larger and has two more types.
#
# Seen (Python 3.11, NumPy 2.4.6, one x86-64 machine): 0.6.0: 4 ms; 0.7.0: 466 ms. The check asks for a factor of 20.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
milliseconds() {
    "$folder/venv/bin/pip" install -q numpy==2.4.6 "ml_dtypes==$1"
    for turn in 1 2 3; do # the first writes bytecode
        "$folder/venv/bin/python" -c "
import time, numpy
begun = time.perf_counter()
import ml_dtypes
print(round((time.perf_counter() - begun) * 1000))"
    done | sort -n | head -n 1
}
old=$(milliseconds 0.6.0)
new=$(milliseconds 0.7.0)
echo "ml_dtypes 0.6.0: $old ms; 0.7.0: $new ms"
[ "$new" -gt $((20 * old)) ]
