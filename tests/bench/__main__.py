"""`make bench`: every figure, one table after the other."""

from tests.bench import bench_operator, bench_pods

bench_operator.main()
bench_pods.main()
