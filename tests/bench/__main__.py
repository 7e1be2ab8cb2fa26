"""`make bench`: every figure, one table after the other."""

from tests.bench import bench_pods
from tests.bench.scale import __main__ as scale

for line in scale.report(jobs=200, finished=200, services=20, peers=False):
    print(line, flush=True)
bench_pods.main()
