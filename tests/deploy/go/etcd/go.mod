// The store of the Kubernetes API server that the tests install the chart into.
module session-aggregator/tests/deploy/etcd

go 1.24.0

tool go.etcd.io/etcd/server/v3

require go.etcd.io/etcd/server/v3 v3.5.21
