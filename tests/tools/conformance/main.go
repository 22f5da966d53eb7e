// The conformance suite of the Gateway API as one program, which takes the flags of its tests. With the argument `mesh` it lists
// the tests of meshes instead, one a line, each with the features that it needs.
package main

import (
	"fmt"
	"os"
	"slices"
	"testing"

	"sigs.k8s.io/gateway-api/conformance"
	"sigs.k8s.io/gateway-api/conformance/tests"
	"sigs.k8s.io/gateway-api/pkg/features"
)

func main() {
	if slices.Equal(os.Args[1:], []string{"mesh"}) {
		for _, test := range tests.ConformanceTests {
			if slices.Contains(test.Features, features.SupportMesh) {
				fmt.Println(test.ShortName, test.Features)
			}
		}
		return
	}
	everything := func(string, string) (bool, error) { return true, nil }
	suite := []testing.InternalTest{{Name: "TestConformance", F: conformance.RunConformance}}
	testing.Main(everything, suite, nil, nil)
}
