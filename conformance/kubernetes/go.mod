module retcd/conformance/kubernetes

go 1.24
