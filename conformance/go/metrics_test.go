package conformance

import (
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// counted are the families that count requests and their results.
var counted = []string{
	"etcd_debugging_lease_granted_total",
	"etcd_debugging_lease_renewed_total",
	"etcd_debugging_lease_revoked_total",
	"etcd_debugging_mvcc_events_total",
	"etcd_debugging_mvcc_watch_stream_total",
	"etcd_mvcc_put_total",
	"etcd_server_apply_duration_seconds_count",
	"etcd_server_client_requests_total",
	"etcd_server_request_duration_seconds_count",
	"grpc_server_handled_total",
	"grpc_server_started_total",
}

// Dashboards and alerts work as with etcd 3.7.1: after the same requests of every method, granted
// and refused, the same series have the same counts.
func TestSameCountsAsReference(t *testing.T) {
	t.Parallel()
	var counts []map[string]float64
	for _, p := range []program{real(), ours()} {
		s := &side{t: t, m: startMember(t, p, cheap)}
		s.conn = s.m.conn()
		// The number of health checks differs.
		before := s.m.counts()
		c := &caller{side: s}
		for _, step := range headerSteps() {
			// The number of attempts depends on timing.
			if step.method != "MemberPromote" || step.name == "not ready" {
				c.ask(step)
			}
		}
		after := s.m.counts()
		for series := range after {
			after[series] -= before[series]
		}
		counts = append(counts, after)
	}
	want, got := counts[0], counts[1]
	for series, n := range want {
		if got[series] != n {
			t.Errorf("%s: reference %v, ours %v", series, n, got[series])
		}
	}
	for series, n := range got {
		if want[series] == 0 && n != 0 {
			t.Errorf("%s: reference has none, ours %v", series, n)
		}
	}
}

// counts are the values of all counted series.
func (m *member) counts() map[string]float64 {
	m.t.Helper()
	resp, err := http.Get("http://" + m.client + "/metrics")
	if err != nil {
		m.t.Fatal(err)
	}
	defer resp.Body.Close()
	page, err := io.ReadAll(resp.Body)
	if err != nil {
		m.t.Fatal(err)
	}
	found := map[string]float64{}
	for line := range strings.Lines(string(page)) {
		series, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if at := strings.LastIndex(line, "} "); at >= 0 {
			series, value = line[:at+1], strings.TrimSpace(line[at+2:])
		}
		family, _, _ := strings.Cut(series, "{")
		if !slices.Contains(counted, family) {
			continue
		}
		if found[series], err = strconv.ParseFloat(value, 64); err != nil {
			m.t.Fatalf("%s: %v", line, err)
		}
	}
	return found
}
