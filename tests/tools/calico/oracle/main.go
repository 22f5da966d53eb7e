// Says what Calico makes of selectors and of policies: one question in JSON a line, one answer a line.
//
// A question has either an expression, whose labels it is about, and endpoints as Calico sees them: with the labels that it adds, and
// those of namespaces and service accounts under their prefixes. The answer is an error, or a verdict for each endpoint. Or it has a
// world, objects and connections, and the answer is what felix allows of the connections and, if that is asked for, what it tells
// a program beside each pod by PolicySync.
package main

import (
	"fmt"

	v3 "github.com/projectcalico/api/pkg/apis/projectcalico/v3"
	"github.com/projectcalico/calico/libcalico-go/lib/backend/syncersv1/updateprocessors"
	"github.com/projectcalico/calico/libcalico-go/lib/selector"
	"mesh.test/tools/calico/lines"
)

type question struct {
	Selector  string              `json:"selector"`
	Whose     string              `json:"whose"`
	Endpoints []map[string]string `json:"endpoints"`
	World     *world              `json:"world"`
}

type answer struct {
	Error    string    `json:"error,omitempty"`
	Verdicts []bool    `json:"verdicts"`
	World    []verdict `json:"world,omitempty"`
	// Messages of PolicySync, by the addresses of pods.
	Sync map[string][][]byte `json:"sync,omitempty"`
}

// The selector that felix is given for a rule of a global policy whose source says this.
func rewritten(q question) (string, error) {
	switch q.Whose {
	case "endpoint":
		return q.Selector, nil
	case "namespace":
		source := v3.EntityRule{NamespaceSelector: q.Selector}
		return updateprocessors.GetEntityRuleSelector(&source, "", "source"), nil
	case "account":
		source := v3.EntityRule{ServiceAccounts: &v3.ServiceAccountMatch{Selector: q.Selector}}
		return updateprocessors.GetEntityRuleSelector(&source, "", "source"), nil
	default:
		return "", fmt.Errorf("nobody's labels: %q", q.Whose)
	}
}

func judge(q question) (answer, error) {
	if q.World != nil {
		verdicts, told, err := judgeWorld(*q.World)
		return answer{World: verdicts, Sync: told}, err
	}
	if _, err := selector.Parse(q.Selector); err != nil {
		return answer{Error: err.Error()}, nil
	}
	text, err := rewritten(q)
	if err != nil {
		return answer{}, err
	}
	parsed, err := selector.Parse(text)
	if err != nil {
		return answer{}, fmt.Errorf("%q became %q, which is no selector: %w", q.Selector, text, err)
	}
	verdicts := make([]bool, 0, len(q.Endpoints))
	for _, labels := range q.Endpoints {
		verdicts = append(verdicts, parsed.Evaluate(labels))
	}
	return answer{Verdicts: verdicts}, nil
}

func main() {
	lines.Answer(judge)
}
