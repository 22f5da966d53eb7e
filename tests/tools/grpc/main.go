// A server and a client of gRPC that are gRPC's own, with every kind of call.
//
// Messages are google.protobuf.StringValue, so that nothing is generated.
//
//	grpc-echo serve ADDRESS
//	grpc-echo call ADDRESS unary|collect|spread|chat TEXT [COUNT [DEADLINE]]
//
// A call tells in one line of JSON what came of it. A text of "fail N" is answered by the status N, "wait" not before the client
// gives up.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

type text = wrapperspb.StringValue

const service = "mesh.test.Echo"

var methods = map[string]grpc.StreamDesc{
	"unary":   {StreamName: "Unary", Handler: unary},
	"collect": {StreamName: "Collect", Handler: collect, ClientStreams: true},
	"spread":  {StreamName: "Spread", Handler: spread, ServerStreams: true},
	"chat":    {StreamName: "Chat", Handler: chat, ClientStreams: true, ServerStreams: true},
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(arguments []string) error {
	switch {
	case len(arguments) == 2 && arguments[0] == "serve":
		return serve(arguments[1])
	case len(arguments) >= 4 && len(arguments) <= 6 && arguments[0] == "call":
		return call(arguments[1], arguments[2], arguments[3], arguments[4:])
	default:
		return errors.New("usage: grpc-echo serve ADDRESS | call ADDRESS METHOD TEXT [COUNT [DEADLINE]]")
	}
}

func serve(address string) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	description := grpc.ServiceDesc{ServiceName: service, HandlerType: (*any)(nil)}
	for _, method := range methods {
		serve := method.Handler
		method.Handler = func(server any, stream grpc.ServerStream) error {
			stream.SetTrailer(metadata.Pairs("x-served-by", service))
			return serve(server, stream)
		}
		description.Streams = append(description.Streams, method)
	}
	server := grpc.NewServer()
	server.RegisterService(&description, struct{}{})
	return server.Serve(listener)
}

// answer says what one message is answered, or with which status the call ends.
func answer(stream grpc.ServerStream, message *text) error {
	word, rest, _ := strings.Cut(message.GetValue(), " ")
	switch word {
	case "fail":
		code, err := strconv.ParseUint(rest, 10, 32)
		if err != nil {
			return status.Error(codes.InvalidArgument, err.Error())
		}
		return status.Error(codes.Code(code), "as it was asked for")
	case "wait":
		<-stream.Context().Done()
		return stream.Context().Err()
	default:
		return nil
	}
}

func receive(stream grpc.ServerStream) (*text, error) {
	message := new(text)
	if err := stream.RecvMsg(message); err != nil {
		return nil, err
	}
	return message, answer(stream, message)
}

func unary(_ any, stream grpc.ServerStream) error {
	message, err := receive(stream)
	if err != nil {
		return err
	}
	return stream.SendMsg(message)
}

func collect(_ any, stream grpc.ServerStream) error {
	var all []string
	for {
		message, err := receive(stream)
		if errors.Is(err, io.EOF) {
			return stream.SendMsg(wrapperspb.String(strings.Join(all, ",")))
		} else if err != nil {
			return err
		}
		all = append(all, message.GetValue())
	}
}

func spread(_ any, stream grpc.ServerStream) error {
	message, err := receive(stream)
	if err != nil {
		return err
	}
	word, times, _ := strings.Cut(message.GetValue(), "*")
	count, err := strconv.Atoi(times)
	if err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	for range count {
		if err := stream.SendMsg(wrapperspb.String(word)); err != nil {
			return err
		}
	}
	return nil
}

func chat(_ any, stream grpc.ServerStream) error {
	for {
		message, err := receive(stream)
		if errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if err := stream.SendMsg(message); err != nil {
			return err
		}
	}
}

// told is what came of a call.
type told struct {
	Code     uint32      `json:"code"`
	Message  string      `json:"message"`
	Answers  []string    `json:"answers"`
	Trailers metadata.MD `json:"trailers"`
}

func call(address, name, word string, rest []string) error {
	method, known := methods[name]
	if !known {
		return fmt.Errorf("no method is named %q", name)
	}
	count, deadline := 1, 10*time.Second
	var err error
	if len(rest) > 0 {
		if count, err = strconv.Atoi(rest[0]); err != nil {
			return err
		}
	}
	if len(rest) > 1 {
		if deadline, err = time.ParseDuration(rest[1]); err != nil {
			return err
		}
	}
	connection, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer connection.Close()
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	came := told{Answers: []string{}}
	ended := func(err error) error {
		state, _ := status.FromError(err)
		came.Code, came.Message = uint32(state.Code()), state.Message()
		return json.NewEncoder(os.Stdout).Encode(came)
	}
	stream, err := connection.NewStream(ctx, &method, "/"+service+"/"+method.StreamName)
	if err != nil {
		return ended(err)
	}
	for range count {
		if err := stream.SendMsg(wrapperspb.String(word)); err != nil {
			break
		}
		// Whoever chats waits for each answer.
		if name == "chat" && !next(stream, &came, &err) {
			return ended(err)
		}
	}
	if err := stream.CloseSend(); err != nil {
		return ended(err)
	}
	for next(stream, &came, &err) {
	}
	came.Trailers = stream.Trailer()
	return ended(err)
}

// next takes one answer, or says how the call ended.
func next(stream grpc.ClientStream, came *told, ended *error) bool {
	message := new(text)
	err := stream.RecvMsg(message)
	if errors.Is(err, io.EOF) {
		return false
	} else if err != nil {
		*ended = err
		return false
	}
	came.Answers = append(came.Answers, message.GetValue())
	return true
}
