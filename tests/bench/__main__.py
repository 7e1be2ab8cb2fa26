"""`make bench`: all figures, one table after the other. `python -m tests.bench transfer` or `rows` prints that table alone."""

import sys

from tests.bench import bench_rows, bench_transfer

ALONE = {"transfer": bench_transfer.main, "rows": bench_rows.main}

if sys.argv[1:]:
    ALONE[sys.argv[1]]()
    sys.exit()

from tests.bench import bench_cache, bench_pods
from tests.bench.scale import __main__ as scale

for line in scale.report([scale.tunesmith_race], jobs=200, races=1, finished=200, services=20):
    print(line, flush=True)
bench_pods.main()
bench_cache.main([])
bench_transfer.main()
bench_rows.main()
