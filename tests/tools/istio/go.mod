// Istio's sample application and its custom resource definitions, which tests apply as they are. Nothing of it is built.
module mesh.test/istio

go 1.24

require istio.io/istio v0.0.0-20260827124520-eed52ebb66ad
