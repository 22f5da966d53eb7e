// Says what dikastes, beside a pod, makes of requests: one question in JSON a line, one answer a line.
//
// A question has what felix tells its dataplane, as `calico-oracle` prints it, and requests. It is a program of its own, since dikastes
// has its own copy of felix' messages, and two cannot be registered in one.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"

	envoy "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authz "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/projectcalico/calico/app-policy/checker"
	"github.com/projectcalico/calico/app-policy/policystore"
	"github.com/projectcalico/calico/app-policy/proto"
	"github.com/sirupsen/logrus"
)

type question struct {
	// Messages as bytes: endpoints by their addresses, policies and profiles by their names.
	Endpoints map[string][]byte `json:"endpoints"`
	Policies  map[string][]byte `json:"policies"`
	Profiles  map[string][]byte `json:"profiles"`
	Sets      [][]byte          `json:"sets"`
	Accounts  [][]byte          `json:"accounts"`
	Spaces    [][]byte          `json:"spaces"`
	Requests  []request         `json:"requests"`
}

// A request on a connection, and the identity that its client proved.
type request struct {
	Source      string `json:"source"`
	Destination string `json:"destination"`
	SourcePort  uint32 `json:"sourcePort"`
	Port        uint32 `json:"port"`
	Method      string `json:"method"`
	Path        string `json:"path"`
	Principal   string `json:"principal"`
}

type message interface{ Unmarshal([]byte) error }

// Reads a message, and keeps the first error.
type reader struct{ err error }

func (r *reader) read(bytes []byte, into message) {
	if err := into.Unmarshal(bytes); err != nil && r.err == nil {
		r.err = err
	}
}

// Everything but the endpoint, which each request has its own of.
func store(q question) (*policystore.PolicyStore, error) {
	all, r := policystore.NewPolicyStore(), reader{}
	for name, bytes := range q.Policies {
		policy := &proto.Policy{}
		r.read(bytes, policy)
		all.PolicyByID[proto.PolicyID{Tier: "default", Name: name}] = policy
	}
	for name, bytes := range q.Profiles {
		profile := &proto.Profile{}
		r.read(bytes, profile)
		all.ProfileByID[proto.ProfileID{Name: name}] = profile
	}
	for _, bytes := range q.Sets {
		update := &proto.IPSetUpdate{}
		r.read(bytes, update)
		set := policystore.NewIPSet(update.Type)
		for _, member := range update.Members {
			set.AddString(member)
		}
		all.IPSetByID[update.Id] = set
	}
	for _, bytes := range q.Accounts {
		account := &proto.ServiceAccountUpdate{}
		r.read(bytes, account)
		all.ServiceAccountByID[*account.Id] = account
	}
	for _, bytes := range q.Spaces {
		space := &proto.NamespaceUpdate{}
		r.read(bytes, space)
		all.NamespaceByID[*space.Id] = space
	}
	return all, r.err
}

func judge(q question) ([]bool, error) {
	all, err := store(q)
	if err != nil {
		return nil, err
	}
	server := checker.NewServer(context.Background(), nil)
	server.Store = all
	verdicts := make([]bool, 0, len(q.Requests))
	for _, asked := range q.Requests {
		all.Endpoint = &proto.WorkloadEndpoint{}
		if err := all.Endpoint.Unmarshal(q.Endpoints[asked.Destination]); err != nil {
			return nil, err
		}
		http := &authz.AttributeContext_HttpRequest{Method: asked.Method, Path: asked.Path}
		answer, err := server.Check(context.Background(), &authz.CheckRequest{Attributes: &authz.AttributeContext{
			Source:      peer(asked.Source, asked.SourcePort, asked.Principal),
			Destination: peer(asked.Destination, asked.Port, ""),
			Request:     &authz.AttributeContext_Request{Http: http},
		}})
		if err != nil {
			return nil, err
		}
		code := answer.GetStatus().GetCode()
		// What is no path is answered as wrong, and does not pass.
		if code != checker.OK && code != checker.PERMISSION_DENIED && code != checker.INVALID_ARGUMENT {
			return nil, fmt.Errorf("the answer to %v is %d", asked, code)
		}
		verdicts = append(verdicts, code == checker.OK)
	}
	return verdicts, nil
}

func peer(address string, port uint32, principal string) *authz.AttributeContext_Peer {
	socket := &envoy.SocketAddress{Address: address, PortSpecifier: &envoy.SocketAddress_PortValue{PortValue: port}}
	return &authz.AttributeContext_Peer{
		Address:   &envoy.Address{Address: &envoy.Address_SocketAddress{SocketAddress: socket}},
		Principal: principal,
	}
}

func run() error {
	questions := json.NewDecoder(bufio.NewReader(os.Stdin))
	out := bufio.NewWriter(os.Stdout)
	answers := json.NewEncoder(out)
	for questions.More() {
		var q question
		if err := questions.Decode(&q); err != nil {
			return err
		}
		verdicts, err := judge(q)
		if err != nil {
			return err
		}
		if err := answers.Encode(verdicts); err != nil {
			return err
		}
	}
	return out.Flush()
}

func main() {
	logrus.SetLevel(logrus.FatalLevel)
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
