package main

import (
	"encoding/json"
	"fmt"
	"net"
	"slices"
	"strings"

	v3 "github.com/projectcalico/api/pkg/apis/projectcalico/v3"
	"github.com/projectcalico/calico/felix/calc"
	"github.com/projectcalico/calico/felix/config"
	"github.com/projectcalico/calico/felix/policysync"
	"github.com/projectcalico/calico/felix/proto"
	"github.com/projectcalico/calico/felix/rules"
	"github.com/projectcalico/calico/libcalico-go/lib/backend/api"
	"github.com/projectcalico/calico/libcalico-go/lib/backend/k8s/conversion"
	"github.com/projectcalico/calico/libcalico-go/lib/backend/model"
	"github.com/projectcalico/calico/libcalico-go/lib/backend/syncersv1/updateprocessors"
	"github.com/projectcalico/calico/libcalico-go/lib/backend/watchersyncer"
	core "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	networking "k8s.io/api/networking/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const host = "node"

// Objects as users write them, and connections between addresses.
type world struct {
	Objects []json.RawMessage `json:"objects"`
	Flows   []flow            `json:"flows"`
	// Is what felix tells a program beside each pod wanted, too?
	WithSync bool `json:"withSync"`
}

type flow struct {
	Source      string `json:"source"`
	Destination string `json:"destination"`
	SourcePort  int32  `json:"sourcePort"`
	Port        int32  `json:"port"`
}

// Whether felix allows what leaves the source and what arrives at the destination, if they are pods.
type verdict struct {
	Egress  *bool `json:"egress"`
	Ingress *bool `json:"ingress"`
}

// What felix computes of the objects and tells its dataplane.
type dataplane struct {
	endpoints map[string]*proto.WorkloadEndpoint
	policies  map[string]*proto.Policy
	profiles  map[string]*proto.Profile
	sets      map[string]*proto.IPSetUpdate
	ids       map[string]proto.WorkloadEndpointID
	// Everything, in order.
	events []any
}

func (d *dataplane) onEvent(event any) {
	d.events = append(d.events, event)
	switch event := event.(type) {
	case *proto.WorkloadEndpointUpdate:
		for _, address := range append(event.Endpoint.Ipv4Nets, event.Endpoint.Ipv6Nets...) {
			address, _, _ = strings.Cut(address, "/")
			d.endpoints[address] = event.Endpoint
			d.ids[address] = *event.Id
		}
	case *proto.ActivePolicyUpdate:
		d.policies[event.Id.Name] = event.Policy
	case *proto.ActiveProfileUpdate:
		d.profiles[event.Id.Name] = event.Profile
	case *proto.IPSetUpdate:
		d.sets[event.Id] = event
	}
}

func compute(objects []json.RawMessage) (*dataplane, error) {
	d := &dataplane{
		endpoints: map[string]*proto.WorkloadEndpoint{},
		policies:  map[string]*proto.Policy{},
		profiles:  map[string]*proto.Profile{},
		sets:      map[string]*proto.IPSetUpdate{},
		ids:       map[string]proto.WorkloadEndpointID{},
	}
	conf := config.New()
	conf.FelixHostname = host
	events := calc.NewEventSequencer(conf)
	events.Callback = d.onEvent
	graph := calc.NewCalculationGraph(events, conf, func() {})
	filter := calc.NewValidationFilter(graph, conf)
	filter.OnStatusUpdated(api.ResyncInProgress)
	for _, object := range objects {
		pairs, err := convert(object)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", object, err)
		}
		for _, pair := range pairs {
			filter.OnUpdates([]api.Update{{KVPair: *pair, UpdateType: api.UpdateTypeKVNew}})
		}
	}
	filter.OnStatusUpdated(api.InSync)
	graph.Flush()
	events.Flush()
	return d, nil
}

// What felix' syncer makes of an object.
func convert(object json.RawMessage) ([]*model.KVPair, error) {
	var head meta.TypeMeta
	if err := json.Unmarshal(object, &head); err != nil {
		return nil, err
	}
	c := conversion.NewConverter()
	switch head.Kind {
	case "Namespace":
		return one(object, c.NamespaceToProfile, updateprocessors.NewProfileUpdateProcessor())
	case "ServiceAccount":
		return one(object, c.ServiceAccountToProfile, updateprocessors.NewProfileUpdateProcessor())
	case "Pod":
		endpoint := func(pod *core.Pod) (*model.KVPair, error) {
			pairs, err := c.PodToWorkloadEndpoints(pod)
			if err != nil || len(pairs) != 1 {
				return nil, fmt.Errorf("%d endpoints: %w", len(pairs), err)
			}
			return pairs[0], nil
		}
		return one(object, endpoint, updateprocessors.NewWorkloadEndpointUpdateProcessor())
	case "Service":
		return one(object, func(service *core.Service) (*model.KVPair, error) { return c.ServiceToKVP(service) }, nil)
	case "EndpointSlice":
		return one(object, func(slice *discovery.EndpointSlice) (*model.KVPair, error) { return c.EndpointSliceToKVP(slice) }, nil)
	case "NetworkPolicy":
		if head.APIVersion == "networking.k8s.io/v1" {
			policy := func(policy *networking.NetworkPolicy) (*model.KVPair, error) {
				return c.K8sNetworkPolicyToCalico(policy)
			}
			return one(object, policy, updateprocessors.NewNetworkPolicyUpdateProcessor())
		}
		policy := func(policy *v3.NetworkPolicy) (*model.KVPair, error) {
			policy.Spec.Types = types(policy.Spec.Types, policy.Spec.Ingress, policy.Spec.Egress)
			return resource(v3.KindNetworkPolicy, &policy.ObjectMeta, policy), nil
		}
		return one(object, policy, updateprocessors.NewNetworkPolicyUpdateProcessor())
	case "GlobalNetworkPolicy":
		policy := func(policy *v3.GlobalNetworkPolicy) (*model.KVPair, error) {
			policy.Spec.Types = types(policy.Spec.Types, policy.Spec.Ingress, policy.Spec.Egress)
			return resource(v3.KindGlobalNetworkPolicy, &policy.ObjectMeta, policy), nil
		}
		return one(object, policy, updateprocessors.NewGlobalNetworkPolicyUpdateProcessor())
	case "NetworkSet":
		set := func(set *v3.NetworkSet) (*model.KVPair, error) {
			return resource(v3.KindNetworkSet, &set.ObjectMeta, set), nil
		}
		return one(object, set, updateprocessors.NewNetworkSetUpdateProcessor())
	case "GlobalNetworkSet":
		set := func(set *v3.GlobalNetworkSet) (*model.KVPair, error) {
			return resource(v3.KindGlobalNetworkSet, &set.ObjectMeta, set), nil
		}
		return one(object, set, updateprocessors.NewGlobalNetworkSetUpdateProcessor())
	default:
		return nil, fmt.Errorf("no such kind is known: %s", head.Kind)
	}
}

func one[T any](
	object json.RawMessage,
	convert func(*T) (*model.KVPair, error),
	processor watchersyncer.SyncerUpdateProcessor,
) ([]*model.KVPair, error) {
	var typed T
	if err := json.Unmarshal(object, &typed); err != nil {
		return nil, err
	}
	pair, err := convert(&typed)
	if err != nil {
		return nil, err
	}
	if processor == nil {
		return []*model.KVPair{pair}, nil
	}
	return processor.Process(pair)
}

func resource(kind string, object *meta.ObjectMeta, value any) *model.KVPair {
	return &model.KVPair{Key: model.ResourceKey{Kind: kind, Namespace: object.Namespace, Name: object.Name}, Value: value}
}

// The types that Calico's client stores where a policy names none.
func types(named []v3.PolicyType, ingress, egress []v3.Rule) []v3.PolicyType {
	switch {
	case len(named) > 0:
		return named
	case len(egress) == 0:
		return []v3.PolicyType{v3.PolicyTypeIngress}
	case len(ingress) == 0:
		return []v3.PolicyType{v3.PolicyTypeEgress}
	default:
		return []v3.PolicyType{v3.PolicyTypeIngress, v3.PolicyTypeEgress}
	}
}

// What PolicySync tells a program beside each pod, by the pod's addresses: messages as bytes.
func (d *dataplane) sync() (map[string][][]byte, error) {
	updates := make(chan any)
	processor := policysync.NewProcessor(updates)
	processor.Start()
	for _, event := range append(d.events, &proto.InSync{}) {
		updates <- event
	}
	told := map[string][][]byte{}
	for address, id := range d.ids {
		// As much as a world can be.
		messages := make(chan proto.ToDataplane, 10_000)
		request := policysync.JoinRequest{JoinMetadata: policysync.JoinMetadata{EndpointID: id, JoinUID: 1}, C: messages}
		processor.JoinUpdates <- request
		for message := range messages {
			bytes, err := message.Marshal()
			if err != nil {
				return nil, err
			}
			told[address] = append(told[address], bytes)
			if message.GetInSync() != nil {
				break
			}
		}
	}
	return told, nil
}

func judgeWorld(w world) ([]verdict, map[string][][]byte, error) {
	d, err := compute(w.Objects)
	if err != nil {
		return nil, nil, err
	}
	verdicts := make([]verdict, 0, len(w.Flows))
	for _, f := range w.Flows {
		var v verdict
		if endpoint, ok := d.endpoints[f.Source]; ok {
			v.Egress = new(bool)
			*v.Egress = d.allows(endpoint, f, false)
		}
		if endpoint, ok := d.endpoints[f.Destination]; ok {
			v.Ingress = new(bool)
			*v.Ingress = d.allows(endpoint, f, true)
		}
		verdicts = append(verdicts, v)
	}
	if !w.WithSync {
		return verdicts, nil, nil
	}
	told, err := d.sync()
	return verdicts, told, err
}

// What felix' chains of an endpoint do with a connection: tiers, then profiles, and what nobody allows is dropped.
func (d *dataplane) allows(endpoint *proto.WorkloadEndpoint, f flow, ingress bool) bool {
	for _, tier := range endpoint.Tiers {
		names := tier.EgressPolicies
		if ingress {
			names = tier.IngressPolicies
		}
		if len(names) == 0 {
			continue
		}
		action := ""
		for _, name := range names {
			if action = d.first(of(d.policies[name], ingress), f); action != "" {
				break
			}
		}
		switch action {
		case "allow":
			return true
		case "next-tier", "pass":
			continue
		default:
			return false
		}
	}
	for _, id := range endpoint.ProfileIds {
		if profile := d.profiles[id]; profile != nil {
			if action := d.first(of(profile, ingress), f); action != "" {
				return action == "allow"
			}
		}
	}
	return false
}

type ruled interface {
	GetInboundRules() []*proto.Rule
	GetOutboundRules() []*proto.Rule
}

func of(rules ruled, ingress bool) []*proto.Rule {
	if ingress {
		return rules.GetInboundRules()
	}
	return rules.GetOutboundRules()
}

// The action of the first rule that is met, if it decides.
func (d *dataplane) first(all []*proto.Rule, f flow) string {
	version := uint8(4)
	if strings.Contains(f.Source, ":") {
		version = 6
	}
	for _, rule := range all {
		// As it is rendered for this version of IP, if it is.
		if rule = rules.FilterRuleToIPVersion(version, rule); rule != nil && rule.Action != "log" && d.meets(rule, f) {
			return rule.Action
		}
	}
	return ""
}

func (d *dataplane) meets(rule *proto.Rule, f flow) bool {
	isTCP := func(protocol *proto.Protocol) bool {
		return strings.EqualFold(protocol.GetName(), "tcp") || protocol.GetNumber() == 6
	}
	// A condition that a rule does not have holds; its contrary does too.
	in := func(has, met bool) bool { return !has || met }
	set := func(address string, port int32) func(string) bool {
		return func(id string) bool { return d.contains(id, address, port) }
	}
	ports := func(ranges []*proto.PortRange, sets []string, address string, port int32) bool {
		within := func(r *proto.PortRange) bool { return r.First <= port && port <= r.Last }
		return slices.ContainsFunc(ranges, within) || slices.ContainsFunc(sets, set(address, port))
	}
	all := func(ids []string, met func(string) bool) bool {
		return !slices.ContainsFunc(ids, func(id string) bool { return !met(id) })
	}
	hasPorts := func(ranges []*proto.PortRange, sets []string) bool { return len(ranges)+len(sets) > 0 }
	src, dst := f.Source, f.Destination
	return in(rule.Protocol != nil, isTCP(rule.Protocol)) &&
		in(rule.NotProtocol != nil, !isTCP(rule.NotProtocol)) &&
		rule.Icmp == nil && rule.NotIcmp == nil &&
		in(len(rule.SrcNet) > 0, within(rule.SrcNet, src)) && !within(rule.NotSrcNet, src) &&
		in(len(rule.DstNet) > 0, within(rule.DstNet, dst)) && !within(rule.NotDstNet, dst) &&
		in(hasPorts(rule.SrcPorts, rule.SrcNamedPortIpSetIds), ports(rule.SrcPorts, rule.SrcNamedPortIpSetIds, src, f.SourcePort)) &&
		!ports(rule.NotSrcPorts, rule.NotSrcNamedPortIpSetIds, src, f.SourcePort) &&
		in(hasPorts(rule.DstPorts, rule.DstNamedPortIpSetIds), ports(rule.DstPorts, rule.DstNamedPortIpSetIds, dst, f.Port)) &&
		!ports(rule.NotDstPorts, rule.NotDstNamedPortIpSetIds, dst, f.Port) &&
		all(rule.SrcIpSetIds, set(src, f.SourcePort)) && !slices.ContainsFunc(rule.NotSrcIpSetIds, set(src, f.SourcePort)) &&
		all(rule.DstIpSetIds, set(dst, f.Port)) && !slices.ContainsFunc(rule.NotDstIpSetIds, set(dst, f.Port)) &&
		all(rule.DstIpPortSetIds, set(dst, f.Port))
}

func within(nets []string, address string) bool {
	ip := net.ParseIP(address)
	return slices.ContainsFunc(nets, func(text string) bool {
		_, ipNet, err := net.ParseCIDR(text)
		return err == nil && ipNet.Contains(ip)
	})
}

func (d *dataplane) contains(id, address string, port int32) bool {
	set := d.sets[id]
	switch set.GetType() {
	case proto.IPSetUpdate_IP_AND_PORT:
		return slices.Contains(set.Members, fmt.Sprintf("%s,tcp:%d", address, port))
	case proto.IPSetUpdate_NET:
		return within(set.GetMembers(), address)
	default:
		return slices.Contains(set.GetMembers(), address)
	}
}
