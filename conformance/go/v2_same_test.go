package conformance

import (
	"fmt"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

const v2RequestsPerSeed = 500

// The server under test answers requests of API v2 as the distribution's etcd 3.4 does: every
// status, header, body and index, and every event. In random scripts, and for each page and
// parameter by itself.
func TestSameAnswersOfV2(t *testing.T) {
	seeds := uint64(6)
	if n, err := strconv.ParseUint(os.Getenv("CONFORMANCE_SEEDS"), 10, 32); err == nil {
		seeds = n
	}
	for seed := uint64(1); seed <= seeds; seed++ {
		t.Run(fmt.Sprintf("seed-%d", seed), func(t *testing.T) {
			t.Parallel()
			c := newV2Comparison(t)
			draw := &v2Script{script: newScript(seed, false)}
			for range v2RequestsPerSeed {
				c.step(draw.next())
				draw.index = c.index
			}
			c.finish()
		})
	}
	t.Run("pages", func(t *testing.T) {
		t.Parallel()
		c := newV2Comparison(t)
		for _, request := range v2Pages() {
			c.step(v2Step{v2Request: request})
		}
		c.finish()
	})
}

// v2Comparison is two servers that are asked the same.
type v2Comparison struct {
	t           *testing.T
	sides       []*v2Side // ours, then the reference
	index       uint64    // the newest seen
	watches     [][]*v2Watch
	seen        map[int]int // answers by status
	differences int
}

func newV2Comparison(t *testing.T) *v2Comparison {
	c := &v2Comparison{t: t, seen: map[int]int{}}
	for _, p := range []program{ours(), withV2(line(t, "3.4"))} {
		c.sides = append(c.sides, newV2Side(startMember(t, p)))
	}
	// Until the first write, ours counts only what the membership is, not how it came about.
	c.ask(v2Put("/first", "value=1"))
	for _, s := range c.sides {
		s.startCounting()
	}
	// Everything, to the end.
	c.step(v2Step{v2Request: v2Get("?wait=true&recursive=true&stream=true"), isWatch: true})
	return c
}

// v2Step is a request, and what belongs to it.
type v2Step struct {
	v2Request
	// isWatch is for requests that may have no answer for long.
	isWatch bool
	// expires is a node whose end is awaited, if the request succeeds.
	expires string
}

func (c *v2Comparison) step(step v2Step) {
	c.t.Helper()
	if step.isWatch {
		c.watches = append(c.watches, onV2Sides(c, func(s *v2Side) *v2Watch { return s.watch(step.v2Request) }))
		return
	}
	reply := c.ask(step.v2Request)
	if step.expires != "" && reply.status/100 == 2 {
		c.awaitEnd(step.expires, reply.index()+1)
	}
}

var v2IndexHeader = regexp.MustCompile(`X-Etcd-Index: \d+`)

// awaitEnd waits for the end of a node, at an index from that one on. Whether that has come before
// it is waited for is chance; the index in the header tells.
func (c *v2Comparison) awaitEnd(path string, index uint64) {
	c.t.Helper()
	r := v2Get(fmt.Sprintf("%s?wait=true&waitIndex=%d", path, index))
	answers := onV2Sides(c, func(s *v2Side) string {
		text, _ := s.ask(r)
		return v2IndexHeader.ReplaceAllString(text, "X-Etcd-Index: a number")
	})
	c.compare(r, answers[1], answers[0])
	c.index = max(c.index, index)
}

// ask compares the answers to one request, and returns the reference's.
func (c *v2Comparison) ask(r v2Request) v2Reply {
	c.t.Helper()
	type answer struct {
		text  string
		reply v2Reply
	}
	answers := onV2Sides(c, func(s *v2Side) answer {
		text, reply := s.ask(r)
		return answer{text, reply}
	})
	c.compare(r, answers[1].text, answers[0].text)
	reply := answers[1].reply
	if reply.index() != answers[0].reply.index() {
		c.t.Fatal("from here on the trees differ")
	}
	if reply.status == http.StatusInternalServerError {
		c.t.Fatalf("%v: the reference has failed: %s", r, reply.body)
	}
	c.index = max(c.index, reply.index())
	c.seen[reply.status]++
	return reply
}

func (c *v2Comparison) compare(r v2Request, reference, ours string) {
	c.t.Helper()
	if reference == ours {
		return
	}
	c.t.Errorf("after index %d: %v\nreference: %s\nours: %s", c.index, r, reference, ours)
	if c.differences++; c.differences >= 8 {
		c.t.Fatal("too many differences")
	}
}

// finish ends what is watched and compares what the watches have received.
func (c *v2Comparison) finish() {
	c.t.Helper()
	for _, name := range append([]string{"/last"}, v2Tops...) {
		c.ask(v2Put(name+"/end/x", "value=x"))
		c.ask(v2Delete(name + "?recursive=true"))
	}
	for _, pair := range c.watches {
		ours, reference := pair[0], pair[1]
		for deadline := time.Now().Add(5 * time.Second); ours.text() != reference.text() && time.Now().Before(deadline); {
			time.Sleep(5 * time.Millisecond)
		}
		c.compare(ours.request, reference.text(), ours.text())
		ours.cancel()
		reference.cancel()
	}
	c.ask(v2Request{method: "GET", path: "/v2/stats/store"})
	c.t.Logf("index %d, %d watches, answers by status: %v", c.index, len(c.watches), c.seen)
}

// onV2Sides asks the two servers concurrently.
func onV2Sides[T any](c *v2Comparison, ask func(*v2Side) T) []T {
	got := make([]T, len(c.sides))
	var wg sync.WaitGroup
	for i, s := range c.sides {
		wg.Go(func() { got[i] = ask(s) })
	}
	wg.Wait()
	return got
}

// v2Tops are the first components of the keys in scripts.
var v2Tops = []string{"/a", "/b", "/q", "/_h", "/sp%20ace"}

// v2Script draws requests of API v2.
type v2Script struct {
	*script
	index   uint64
	watches int
}

// key draws from few keys, so that requests interact; some are odd on purpose.
func (s *v2Script) key() string {
	switch s.rng.IntN(50) {
	case 0:
		return pick(s.script, "", "/")
	case 1:
		return pick(s.script, "//a", "/a//b", "/a/../b", "/./a", "/..")
	case 2:
		return pick(s.script, "/a%2Fx", "/%C3%BC", "/%FF", "/%3C%3E&", "/a+b", "/a%00b")
	}
	key := pick(s.script, v2Tops...)
	for s.one(2) && len(key) < 16 {
		key += "/" + pick(s.script, "x", "y", "z", "_i")
	}
	if s.one(12) {
		key += "/"
	}
	return key
}

// bool draws a parameter, seldom a wrong one, as an element of a form.
func (s *v2Script) bool(name string) string {
	if s.one(30) {
		return name + "=" + pick(s.script, "maybe", "", "yes", "1", "T", "f", "False", "tRue")
	}
	return name + "=" + pick(s.script, "true", "true", "true", "false")
}

func (s *v2Script) number(name string) string {
	n := pick(s.script, 0, s.index, s.index+1, 1+s.rng.Uint64N(s.index+1), 1+s.rng.Uint64N(s.index+1))
	text := fmt.Sprint(n)
	if s.one(15) {
		text = pick(s.script, "", "-1", "x", "1.5", "+1", "0x10", "18446744073709551616", "%201")
	}
	return name + "=" + text
}

func (s *v2Script) value() string {
	return pick(s.script, "one", "two", "", "%3C%26%3E%FF%22", "%C3%BC", "%E2%82%7E")
}

// write draws the parameters of PUT and POST.
func (s *v2Script) write() []string {
	var form []string
	add := func(in int, parameter string) {
		if s.one(in) {
			form = append(form, parameter)
		}
	}
	if !s.one(6) {
		form = append(form, "value="+s.value())
	}
	add(5, s.bool("dir"))
	add(4, fmt.Sprintf("ttl=%v", pick[any](s.script, shortTTL, shortTTL, longTTL, "", "x", "-1", "1.5")))
	add(6, s.bool("prevExist"))
	add(8, "prevValue="+s.value())
	add(8, s.number("prevIndex"))
	add(20, s.bool("refresh"))
	add(20, s.bool("noValueOnSuccess"))
	add(60, s.bool("recursive"))
	add(60, s.bool("wait"))
	add(60, s.bool("stream"))
	add(60, s.bool("sorted"))
	add(60, s.bool("quorum"))
	add(60, s.number("waitIndex"))
	add(60, "unknown=1")
	add(40, "value=again")
	s.rng.Shuffle(len(form), func(i, j int) { form[i], form[j] = form[j], form[i] })
	return form
}

// spread divides parameters between query and body.
func (s *v2Script) spread(method, key string, parameters []string) v2Request {
	r := v2Request{method: method, path: "/v2/keys" + key, kind: formKind}
	var query, form []string
	for _, parameter := range parameters {
		if s.one(5) {
			query = append(query, parameter)
		} else {
			form = append(form, parameter)
		}
	}
	if len(query) > 0 {
		r.path += "?" + strings.Join(query, "&")
	}
	r.form = strings.Join(form, "&")
	if s.one(40) {
		r.kind = pick(s.script, "", "text/plain", "application/json", formKind+"; charset=utf-8")
	}
	if s.one(80) {
		r.form += pick(s.script, "&%zz=1", "&", "&=")
	}
	return r
}

func (s *v2Script) query(options ...string) string {
	var chosen []string
	for _, option := range options {
		if s.one(3) {
			chosen = append(chosen, option)
		}
	}
	if len(chosen) == 0 {
		return ""
	}
	return "?" + strings.Join(chosen, "&")
}

// next draws one step.
func (s *v2Script) next() v2Step {
	switch n := s.rng.IntN(100); {
	case n < 38:
		return v2Step{v2Request: s.spread("PUT", s.key(), s.write())}
	case n < 46:
		return v2Step{v2Request: s.spread("POST", pick(s.script, "/q", "/q", s.key()), s.write())}
	case n < 60:
		query := s.query(s.bool("recursive"), s.bool("dir"))
		if s.one(3) {
			query = s.query("prevValue="+s.value(), s.number("prevIndex"), s.bool("dir"))
		}
		return v2Step{v2Request: v2Delete(s.key() + query)}
	case n < 78:
		return v2Step{v2Request: v2Get(s.key() + s.query(s.bool("recursive"), s.bool("sorted"), s.bool("quorum"), "unknown=1"))}
	case n < 82:
		r := v2Get(s.key() + s.query(s.bool("recursive"), s.bool("quorum")))
		r.method = http.MethodHead
		return v2Step{v2Request: r}
	case n < 91 && s.watches < 60:
		s.watches++
		return s.watch()
	case n < 93:
		return s.expiring()
	default:
		return v2Step{v2Request: pick(s.script, v2Pages()...)}
	}
}

func (s *v2Script) watch() v2Step {
	query := "?wait=true"
	if s.one(2) {
		query += "&recursive=true"
	}
	if s.one(3) {
		query += "&stream=true"
	}
	switch s.rng.IntN(4) {
	case 0:
		query += fmt.Sprintf("&waitIndex=%d", 1+s.rng.Uint64N(s.index+1))
	case 1:
		query += fmt.Sprintf("&waitIndex=%d", s.index+1+s.rng.Uint64N(20))
	case 2:
		query += "&" + s.number("waitIndex")
	}
	return v2Step{v2Request: v2Get(s.key() + query), isWatch: true}
}

// expiring draws a node that expires soon; the script goes on when it has.
func (s *v2Script) expiring() v2Step {
	key := "/a/" + pick(s.script, "x", "y", "z", "e")
	if s.one(4) {
		key = "/" + pick(s.script, "b", "q")
	}
	form := "ttl=" + pick(s.script, "0", "1")
	if s.one(3) {
		form += "&dir=true" + pick(s.script, "", "&prevExist=true", "&prevExist=false")
	} else {
		form += "&value=" + s.value()
	}
	return v2Step{v2Request: v2Put(key, form), expires: key}
}

// v2Pages are requests beside those about keys, and the fixed ones about keys.
func v2Pages() []v2Request {
	get := func(path string) v2Request { return v2Request{method: "GET", path: path} }
	with := func(method, path, kind, body string) v2Request {
		return v2Request{method: method, path: path, kind: kind, form: body}
	}
	const isJSON = "application/json"
	return []v2Request{
		get("/v2/members"), get("/v2/members/"), get("/v2/members/leader"), get("/v2/members/SELF"), get("/v2/members/x"),
		with("HEAD", "/v2/members", "", ""), with("PATCH", "/v2/members", "", ""), with("OPTIONS", "/v2/members", "", ""),
		with("POST", "/v2/members", formKind, "a=b"), with("POST", "/v2/members", isJSON, "{"),
		with("POST", "/v2/members", isJSON, `{"peerURLs":[]}`), with("POST", "/v2/members", isJSON, `{}`),
		with("POST", "/v2/members", isJSON, `{"peerURLs":["foo://127.0.0.1:1"]}`),
		with("POST", "/v2/members", isJSON, `{"peerURLs":["http://127.0.0.1"]}`),
		with("POST", "/v2/members", isJSON, `{"peerURLs":["http://127.0.0.1:1/path"]}`),
		with("POST", "/v2/members", isJSON, `{"peerURLs":["http://PEER"]}`),
		with("POST", "/v2/members/SELF", isJSON, `{"peerURLs":["http://PEER"]}`),
		with("PUT", "/v2/members/1234", isJSON, `{"peerURLs":["http://127.0.0.1:1"]}`),
		with("PUT", "/v2/members/zzz", isJSON, `{"peerURLs":["http://127.0.0.1:1"]}`),
		with("PUT", "/v2/members/SELF", isJSON, `{"peerURLs":["http://PEER"]}`),
		with("PUT", "/v2/members/SELF", isJSON, `{"peerURLs":["nonsense"]}`),
		with("PUT", "/v2/members/SELF", formKind, ""), with("PUT", "/v2/members", isJSON, `{}`),
		with("DELETE", "/v2/members/1234", "", ""), with("DELETE", "/v2/members/zzz", "", ""),
		with("DELETE", "/v2/members", "", ""), with("DELETE", "/v2/members/", "", ""),
		get("/v2/machines"), with("HEAD", "/v2/machines", "", ""), with("PUT", "/v2/machines", "", ""), get("/v2/machines/"),
		get("/v2/stats/self"), get("/v2/stats/leader"), get("/v2/stats/store"), get("/v2/stats"), get("/v2/stats/nothing"),
		with("POST", "/v2/stats/self", "", ""), with("POST", "/v2/stats/leader", "", ""), with("POST", "/v2/stats/store", "", ""),
		with("HEAD", "/v2/stats/self", "", ""),
		get("/v2"), get("/v2/"), get("/v2/nothing"), get("/v2/keysx"), get("/v2//keys"), get("/v2/../v2/keys"),
		with("PATCH", "/v2/keys/a", "", ""), with("OPTIONS", "/v2/keys/a", "", ""), with("TRACE", "/v2/keys/a", "", ""),
		with("HEAD", "/v2/keys/none", "", ""),
		get("/v2/auth/enable"), get("/v2/auth/users"), get("/v2/auth/roles"), get("/v2/auth/nothing"), get("/v2/auth"),
		with("PUT", "/v2/keys/a?wait=true", formKind, "value=1"), with("PUT", "/v2/keys/", formKind, "value=1"),
		with("PUT", "/v2/keys/a", formKind, "refresh=true"), with("PUT", "/v2/keys/a", formKind, "refresh=true&ttl=1000&value=x"),
		with("PUT", "/v2/keys/a", formKind, "prevExist="), with("PUT", "/v2/keys/a", formKind, "prevValue="),
		with("DELETE", "/v2/keys/a?prevValue=", "", ""), with("DELETE", "/v2/keys/", "", ""),
		with("DELETE", "/v2/keys/?recursive=true", "", ""), with("DELETE", "/v2/keys/a?wait=true", "", ""),
		with("POST", "/v2/keys/q?prevExist=true", formKind, "value=1"), with("POST", "/v2/keys/", formKind, "value=root"),
	}
}
