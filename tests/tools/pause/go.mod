// What holds a pod's namespaces: main.go.
module mesh.test/tools/pause

go 1.24
