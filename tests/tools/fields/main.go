// Prints the fields of network policies, as their types in Go have them: a map from kinds to paths such as
// `spec.ingress[].from[].ipBlock.cidr`.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"sort"
	"strings"

	calico "github.com/projectcalico/api/pkg/apis/projectcalico/v3"
	networking "k8s.io/api/networking/v1"
	cluster "sigs.k8s.io/network-policy-api/apis/v1alpha2"
)

var marshaler = reflect.TypeFor[json.Marshaler]()

// The paths of what a type holds. What writes itself is a value.
func leaves(of reflect.Type, path string, found map[string]bool) {
	if of.Kind() == reflect.Pointer {
		leaves(of.Elem(), path, found)
		return
	}
	if of.Implements(marshaler) || reflect.PointerTo(of).Implements(marshaler) {
		found[path] = true
		return
	}
	switch of.Kind() {
	case reflect.Struct:
		for i := range of.NumField() {
			field := of.Field(i)
			name, options, _ := strings.Cut(field.Tag.Get("json"), ",")
			switch {
			case strings.Contains(options, "inline"):
				leaves(field.Type, path, found)
			case name != "" && name != "-":
				leaves(field.Type, path+"."+name, found)
			}
		}
	case reflect.Slice:
		leaves(of.Elem(), path+"[]", found)
	case reflect.Map:
		leaves(of.Elem(), path+".*", found)
	default:
		found[path] = true
	}
}

func main() {
	kinds := map[string]reflect.Type{
		"NetworkPolicy.networking.k8s.io":                 reflect.TypeFor[networking.NetworkPolicySpec](),
		"ClusterNetworkPolicy.policy.networking.k8s.io":   reflect.TypeFor[cluster.ClusterNetworkPolicySpec](),
		"NetworkPolicy.projectcalico.org":                 reflect.TypeFor[calico.NetworkPolicySpec](),
		"GlobalNetworkPolicy.projectcalico.org":           reflect.TypeFor[calico.GlobalNetworkPolicySpec](),
		"StagedNetworkPolicy.projectcalico.org":           reflect.TypeFor[calico.StagedNetworkPolicySpec](),
		"StagedGlobalNetworkPolicy.projectcalico.org":     reflect.TypeFor[calico.StagedGlobalNetworkPolicySpec](),
		"StagedKubernetesNetworkPolicy.projectcalico.org": reflect.TypeFor[calico.StagedKubernetesNetworkPolicySpec](),
		"Tier.projectcalico.org":                          reflect.TypeFor[calico.TierSpec](),
		"NetworkSet.projectcalico.org":                    reflect.TypeFor[calico.NetworkSetSpec](),
		"GlobalNetworkSet.projectcalico.org":              reflect.TypeFor[calico.GlobalNetworkSetSpec](),
	}
	paths := map[string][]string{}
	for kind, spec := range kinds {
		found := map[string]bool{}
		leaves(spec, "spec", found)
		for path := range found {
			paths[kind] = append(paths[kind], path)
		}
		sort.Strings(paths[kind])
	}
	if err := json.NewEncoder(os.Stdout).Encode(paths); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
