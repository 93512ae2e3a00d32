package conformance

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"slices"
	"sort"
	"strings"
	"sync"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
)

// collector takes spans as an OpenTelemetry collector does.
type collector struct {
	collectorpb.UnimplementedTraceServiceServer
	mu    sync.Mutex
	spans []collectedSpan
}

type collectedSpan struct {
	resource, scope string
	*tracepb.Span
}

func (c *collector) Export(_ context.Context, r *collectorpb.ExportTraceServiceRequest) (*collectorpb.ExportTraceServiceResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, of := range r.ResourceSpans {
		for _, scope := range of.ScopeSpans {
			for _, span := range scope.Spans {
				c.spans = append(c.spans, collectedSpan{attributes("", of.Resource.Attributes), scope.Scope.Name, span})
			}
		}
	}
	return &collectorpb.ExportTraceServiceResponse{}, nil
}

func startCollector(t *testing.T) (*collector, string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c, server := &collector{}, grpc.NewServer()
	collectorpb.RegisterTraceServiceServer(server, c)
	go server.Serve(l)
	t.Cleanup(server.Stop)
	return c, l.Addr().String()
}

// attributes are keys and values, but for those that differ from start to start.
func attributes(call string, list []*commonpb.KeyValue) string {
	var all []string
	for _, a := range list {
		switch {
		case a.Key == "server.port":
			a.Value = &commonpb.AnyValue{}
		// The client ends a stream of keep-alives in one way or the other.
		case a.Key == "rpc.response.status_code" && call == "etcdserverpb.Lease/LeaseKeepAlive":
			a.Value = &commonpb.AnyValue{}
		}
		all = append(all, fmt.Sprintf("%s=%v", a.Key, strings.Join(strings.Fields(a.Value.String()), " ")))
	}
	sort.Strings(all)
	return strings.Join(all, " ")
}

// tree is what a collector has: calls in the order of their begin, with what is within them.
func (c *collector) tree() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	slices.SortStableFunc(c.spans, func(a, b collectedSpan) int {
		return cmp.Compare(a.StartTimeUnixNano, b.StartTimeUnixNano)
	})
	var text strings.Builder
	var write func(parent []byte, depth int)
	write = func(parent []byte, depth int) {
		for _, span := range c.spans {
			if string(span.ParentSpanId) != string(parent) {
				continue
			}
			fmt.Fprintf(&text, "%s%s %v flags %x {%s} of %s {%s} %v", strings.Repeat("  ", depth), span.Name, span.Kind,
				span.Flags, attributes(span.Name, span.Attributes), span.scope, span.resource, span.Status.GetCode())
			for _, event := range span.Events {
				fmt.Fprintf(&text, " [%s]", event.Name)
			}
			text.WriteString("\n")
			write(span.SpanId, depth+1)
		}
	}
	// The pages of health make spans of their own at the reference, outside of any call.
	c.spans = slices.DeleteFunc(c.spans, func(span collectedSpan) bool {
		return len(span.ParentSpanId) == 0 && span.Kind != tracepb.Span_SPAN_KIND_SERVER
	})
	write(nil, 0)
	return text.String()
}

// A collector gets the same spans of the same calls, with the same attributes and events, and below
// the operations the stages that only we have.
func TestSameSpansAsReference(t *testing.T) {
	t.Parallel()
	stages := []string{
		"waited for disk", "waited for quorum", "waited for the apply thread", "executed",
		"agreement among raft nodes before linearized reading",
	}
	var trees []string
	for _, p := range []program{real(), ours()} {
		traces, address := startCollector(t)
		m := startMember(t, p, "--enable-distributed-tracing", "--distributed-tracing-address="+address,
			"--distributed-tracing-sampling-rate=1000000", "--distributed-tracing-instance-id=m1")
		traceCalls(t, m.dial())
		m.stop()
		var kept []string
		for line := range strings.Lines(traces.tree()) {
			isStage := func(stage string) bool { return strings.HasPrefix(strings.TrimSpace(line), stage+" ") }
			if !slices.ContainsFunc(stages, isStage) {
				kept = append(kept, line)
			} else if p.name != ours().name {
				t.Errorf("the reference has our stage: %s", line)
			}
		}
		trees = append(trees, strings.Join(kept, ""))
	}
	if trees[0] != trees[1] {
		t.Errorf("reference:\n%s\nours:\n%s", trees[0], trees[1])
	}
	if !strings.Contains(trees[0], "  put ") {
		t.Errorf("no spans:\n%s", trees[0])
	}
}

func traceCalls(t *testing.T, c *clientv3.Client) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	put := func(key string) {
		_, err := c.Put(ctx(t), key, "v")
		must(err)
	}
	put("a")
	_, err := c.Get(ctx(t), "a", clientv3.WithPrefix(), clientv3.WithCountOnly())
	must(err)
	_, err = c.Get(ctx(t), "a", clientv3.WithSerializable(), clientv3.WithLimit(3))
	must(err)
	_, err = c.Txn(ctx(t)).If(clientv3.Compare(clientv3.Value("a"), "=", "v")).
		Then(clientv3.OpPut("b", "v"), clientv3.OpGet("a")).Else(clientv3.OpDelete("a")).Commit()
	must(err)
	_, err = c.Txn(ctx(t)).Then(clientv3.OpGet("a")).Commit()
	must(err)
	_, err = c.Delete(ctx(t), "a", clientv3.WithPrefix())
	must(err)
	_, err = c.Revoke(ctx(t), 7)
	if err == nil {
		t.Fatal("there is no such lease")
	}
	_, err = c.KeepAliveOnce(ctx(t), 7)
	if err == nil {
		t.Fatal("there is no such lease")
	}
	_, err = c.Get(ctx(t), "a", clientv3.WithRev(1000))
	if err == nil {
		t.Fatal("there is no such revision")
	}
	_, err = c.Compact(ctx(t), 2)
	must(err)
	watching, cancel := context.WithCancel(ctx(t))
	watch := c.Watch(watching, "w", clientv3.WithPrevKV(), clientv3.WithCreatedNotify())
	<-watch
	put("w")
	<-watch
	cancel()
	for range watch {
	}
	_, err = c.MemberList(ctx(t))
	must(err)
}
