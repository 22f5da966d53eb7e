// Says what dikastes, beside a pod, makes of requests: one question in JSON a line, one answer a line.
//
// A question has what felix tells a program beside each pod, as `calico-oracle` prints it, and requests. Dikastes' own client reads
// that from a server of PolicySync. It is a program of its own, since dikastes has its own copy of felix' messages, and two cannot be
// registered in one.
package main

import (
	"context"
	"fmt"
	"net"
	"time"

	envoy "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authz "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/projectcalico/calico/app-policy/checker"
	"github.com/projectcalico/calico/app-policy/policystore"
	"github.com/projectcalico/calico/app-policy/proto"
	syncer "github.com/projectcalico/calico/app-policy/syncher"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"
	"mesh.test/tools/calico/lines"
)

const patience = time.Minute

type question struct {
	// Messages of PolicySync, by the addresses of pods.
	Sync     map[string][][]byte `json:"sync"`
	Requests []request           `json:"requests"`
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

// Serves PolicySync for one pod.
type synced struct{ messages [][]byte }

func (s *synced) Sync(_ *proto.SyncRequest, stream proto.PolicySync_SyncServer) error {
	for _, bytes := range s.messages {
		message := &proto.ToDataplane{}
		if err := message.Unmarshal(bytes); err != nil {
			return err
		}
		if err := stream.Send(message); err != nil {
			return err
		}
	}
	<-stream.Context().Done()
	return nil
}

// What dikastes knows once it is in sync.
func store(messages [][]byte) (*policystore.PolicyStore, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	pipe := bufconn.Listen(1 << 20)
	server := grpc.NewServer()
	proto.RegisterPolicySyncServer(server, &synced{messages})
	go func() { _ = server.Serve(pipe) }()
	defer server.Stop()
	dial := func(ctx context.Context, _ string) (net.Conn, error) { return pipe.DialContext(ctx) }
	options := []grpc.DialOption{
		grpc.WithContextDialer(dial),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
	}
	stores := make(chan *policystore.PolicyStore, 1)
	go syncer.NewClient("passthrough:///felix", options).Sync(ctx, stores)
	select {
	case store := <-stores:
		return store, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("dikastes was not in sync within %s", patience)
	}
}

func judge(q question) ([]bool, error) {
	stores := map[string]*policystore.PolicyStore{}
	server := checker.NewServer(context.Background(), nil)
	verdicts := make([]bool, 0, len(q.Requests))
	for _, asked := range q.Requests {
		if stores[asked.Destination] == nil {
			known, err := store(q.Sync[asked.Destination])
			if err != nil {
				return nil, err
			}
			stores[asked.Destination] = known
		}
		server.Store = stores[asked.Destination]
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

func main() {
	lines.Answer(judge)
}
