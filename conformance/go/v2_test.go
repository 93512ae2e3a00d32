package conformance

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// withV2 makes a program of an older line serve API v2, which ours does on its own.
func withV2(p program) program {
	p.flag = "--enable-v2=true"
	return p
}

// v2Request is a request of API v2, as it goes over the wire.
type v2Request struct {
	method string
	// path includes the query, and is not escaped further.
	path string
	// form is the body, of type kind.
	form, kind string
	// user is a name and a password, joined by a colon.
	user string
}

func (r v2Request) String() string {
	return strings.TrimSpace(fmt.Sprintf("%s %s %s %s %s", r.method, r.path, r.kind, r.form, r.user))
}

// formKind is the type of a body with parameters.
const formKind = "application/x-www-form-urlencoded"

func v2Get(path string) v2Request { return v2Request{method: "GET", path: "/v2/keys" + path} }

func v2Put(path, form string) v2Request {
	return v2Request{method: "PUT", path: "/v2/keys" + path, form: form, kind: formKind}
}

func v2Post(path, form string) v2Request {
	return v2Request{method: "POST", path: "/v2/keys" + path, form: form, kind: formKind}
}

func v2Delete(path string) v2Request { return v2Request{method: "DELETE", path: "/v2/keys" + path} }

// v2Client follows no redirects; one connection per member is not enough for watches.
var v2Client = &http.Client{
	Transport:     &http.Transport{MaxIdleConnsPerHost: 32},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// sendV2 sends a request; the caller reads the body.
func (m *member) sendV2(c context.Context, r v2Request) (*http.Response, error) {
	request, err := http.NewRequestWithContext(c, r.method, "http://"+m.client, strings.NewReader(r.form))
	if err != nil {
		return nil, err
	}
	path, query, _ := strings.Cut(r.path, "?")
	request.URL = &url.URL{Scheme: "http", Host: m.client, Opaque: path, RawQuery: query}
	if r.kind != "" {
		request.Header.Set("Content-Type", r.kind)
	}
	if name, password, ok := strings.Cut(r.user, ":"); ok {
		request.SetBasicAuth(name, password)
	}
	return v2Client.Do(request)
}

// v2Reply is an answer that has been read.
type v2Reply struct {
	status int
	header http.Header
	body   string
}

// askV2 sends a request and reads its answer.
func (m *member) askV2(r v2Request) (v2Reply, error) {
	c, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	response, err := m.sendV2(c, r)
	if err != nil {
		return v2Reply{}, err
	}
	return readReply(response)
}

func readReply(response *http.Response) (v2Reply, error) {
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return v2Reply{response.StatusCode, response.Header, string(body)}, err
}

// mustV2 is askV2 for requests that succeed.
func (m *member) mustV2(r v2Request) v2Reply {
	m.t.Helper()
	reply, err := m.askV2(r)
	if err != nil || reply.status/100 != 2 {
		m.t.Fatalf("%s: %v: %v, %d %s", m, r, err, reply.status, reply.body)
	}
	return reply
}

func (r v2Reply) index() uint64 {
	index, _ := strconv.ParseUint(r.header.Get("X-Etcd-Index"), 10, 64)
	return index
}

// v2Node is a node in an answer.
type v2Node struct {
	Key           string    `json:"key,omitempty"`
	Value         *string   `json:"value,omitempty"`
	Dir           bool      `json:"dir,omitempty"`
	Expiration    string    `json:"expiration,omitempty"`
	TTL           int64     `json:"ttl,omitempty"`
	Nodes         []*v2Node `json:"nodes,omitempty"`
	ModifiedIndex uint64    `json:"modifiedIndex,omitempty"`
	CreatedIndex  uint64    `json:"createdIndex,omitempty"`
}

// v2Event is the answer to a request about a key.
type v2Event struct {
	Action   string  `json:"action"`
	Node     *v2Node `json:"node,omitempty"`
	PrevNode *v2Node `json:"prevNode,omitempty"`
}

func (r v2Reply) event(t testing.TB) *v2Event {
	t.Helper()
	var event v2Event
	if err := json.Unmarshal([]byte(r.body), &event); err != nil {
		t.Fatalf("%v: %s", err, r.body)
	}
	return &event
}

// sort orders children by key: without sorted=true their order is a matter of chance.
func (n *v2Node) sort() {
	slices.SortFunc(n.Nodes, func(a, b *v2Node) int { return strings.Compare(a.Key, b.Key) })
	for _, child := range n.Nodes {
		child.sort()
	}
}

var (
	v2TTL        = regexp.MustCompile(`"ttl":([0-9]+)`)
	v2Expiration = regexp.MustCompile(`"expiration":"([^"]*)"`)
	v2Times      = regexp.MustCompile(`"(startTime|uptime)":"[^"]+"`)
	v2Rates      = regexp.MustCompile(`,"(recv|send)(Pkg|Bandwidth)Rate":[^,}]+`)
)

// stable replaces what differs from run to run: addresses, ids, and times, of which only the size
// is compared.
func (s *v2Side) stable(text string) string {
	text = strings.NewReplacer(s.m.client, "CLIENT", s.m.peer, "PEER", s.id, "ID").Replace(text)
	text = v2TTL.ReplaceAllStringFunc(text, func(field string) string {
		ttl, _ := strconv.Atoi(v2TTL.FindStringSubmatch(field)[1])
		return `"ttl":` + magnitude(time.Duration(ttl)*time.Second)
	})
	text = v2Expiration.ReplaceAllStringFunc(text, func(field string) string {
		at, err := time.Parse(time.RFC3339Nano, v2Expiration.FindStringSubmatch(field)[1])
		if err != nil || at.Location() != time.UTC {
			return field
		}
		return `"expiration":` + magnitude(time.Until(at))
	})
	text = v2Times.ReplaceAllString(text, `"$1":TIME`)
	return v2Rates.ReplaceAllString(text, "")
}

// magnitude tells the times to live that scripts use apart.
func magnitude(left time.Duration) string {
	switch {
	case left <= 5*time.Second:
		return "now"
	case left <= shortTTL*time.Second:
		return "short"
	case left <= longTTL*time.Second:
		return "long"
	}
	return left.String()
}

// Times to live, in seconds, of nodes that do not expire during a test.
const (
	shortTTL = 1000
	longTTL  = 90000
)

// v2Headers are the headers compared by value.
var v2Headers = []string{"Content-Type", "Allow", "Location", "X-Etcd-Index", "X-Content-Type-Options",
	"Access-Control-Allow-Headers", "Access-Control-Allow-Methods", "Access-Control-Allow-Origin"}

// head is the status and the headers of an answer, as text.
func (s *v2Side) head(status int, header http.Header) string {
	text := fmt.Sprintln(status)
	for _, name := range v2Headers {
		if value := header.Get(name); value != "" {
			text += fmt.Sprintf("%s: %s\n", name, s.stable(value))
		}
	}
	for _, name := range []string{"X-Etcd-Cluster-Id", "X-Raft-Index", "X-Raft-Term"} {
		if value := header.Get(name); value != "" {
			_, err := strconv.ParseUint(value, 16, 64)
			text += fmt.Sprintf("%s: a number: %t\n", name, err == nil)
		}
	}
	return text
}

// v2Side is one of the two servers of a comparison.
type v2Side struct {
	m  *member
	id string
	// counts are statistics that later ones are compared with.
	counts map[string]int
}

func newV2Side(m *member) *v2Side {
	s := &v2Side{m: m}
	var list struct{ Members []struct{ ID string } }
	reply := m.mustV2(v2Request{method: "GET", path: "/v2/members"})
	if err := json.Unmarshal([]byte(reply.body), &list); err != nil || len(list.Members) != 1 {
		m.t.Fatalf("%s: members: %v, %s", m, err, reply.body)
	}
	s.id = list.Members[0].ID
	return s
}

var v2Count = regexp.MustCompile(`"([a-zA-Z]+)":([0-9]+)`)

// increases replaces the counts of /v2/stats/store by what has been added to them. How often a
// server reads for itself is its own affair, and so is how many watchers it still has.
func (s *v2Side) increases(body string) string {
	return v2Count.ReplaceAllStringFunc(body, func(field string) string {
		parts := v2Count.FindStringSubmatch(field)
		switch name := parts[1]; name {
		case "getsSuccess", "getsFail", "watchers":
			return `"` + name + `":N`
		default:
			count, _ := strconv.Atoi(parts[2])
			return fmt.Sprintf("%q:%d", name, count-s.counts[name])
		}
	})
}

// startCounting makes the present counts those that later ones are compared with.
func (s *v2Side) startCounting() {
	s.counts = map[string]int{}
	body := s.m.mustV2(v2Request{method: "GET", path: "/v2/stats/store"}).body
	for _, parts := range v2Count.FindAllStringSubmatch(body, -1) {
		s.counts[parts[1]], _ = strconv.Atoi(parts[2])
	}
}

// ask sends a request and returns its answer as comparable text.
func (s *v2Side) ask(r v2Request) (string, v2Reply) {
	r.path = strings.NewReplacer("SELF", s.id).Replace(r.path)
	r.form = strings.NewReplacer("PEER", s.m.peer).Replace(r.form)
	reply, err := s.m.askV2(r)
	if err != nil {
		return err.Error(), reply
	}
	body := reply.body
	if reply.status == http.StatusOK && !strings.Contains(r.path, "sorted=true") && strings.Contains(body, `"nodes":`) {
		event := reply.event(s.m.t)
		event.Node.sort()
		sorted, err := json.Marshal(event)
		if err != nil {
			s.m.t.Fatal(err)
		}
		body = string(sorted)
	}
	if r.path == "/v2/stats/store" && reply.status == http.StatusOK {
		body = s.increases(body)
	}
	return s.head(reply.status, reply.header) + "\n" + s.stable(body), reply
}

// v2Watch is a watch that goes on beside other requests.
type v2Watch struct {
	side    *v2Side
	request v2Request
	cancel  context.CancelFunc

	mu    sync.Mutex
	head  string
	body  []byte
	ended string
}

// watch opens a watch; it is registered when this returns.
func (s *v2Side) watch(r v2Request) *v2Watch {
	c, cancel := context.WithCancel(context.Background())
	s.m.t.Cleanup(cancel)
	w := &v2Watch{side: s, request: r, cancel: cancel}
	response, err := s.m.sendV2(c, r)
	if err != nil {
		w.head, w.ended = "none", err.Error()
		return w
	}
	w.head = s.head(response.StatusCode, response.Header)
	go func() {
		defer response.Body.Close()
		buffer := make([]byte, 4096)
		for {
			n, err := response.Body.Read(buffer)
			w.mu.Lock()
			w.body = append(w.body, buffer[:n]...)
			if err != nil {
				w.ended = err.Error()
				w.mu.Unlock()
				return
			}
			w.mu.Unlock()
		}
	}()
	return w
}

// text is everything that the watch has received so far.
func (w *v2Watch) text() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return fmt.Sprintf("%s\n%sended: %s", w.head, w.side.stable(string(w.body)), w.ended)
}
