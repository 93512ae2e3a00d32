package conformance

import (
	"fmt"
	"strings"
	"testing"
)

const v2UserRequestsPerSeed = 80

// The server under test answers requests about users and roles of API v2, and those of users, as
// etcd 3.4 does.
func TestSameAnswersToEveryUserOfV2(t *testing.T) {
	for seed := uint64(51); seed <= 52; seed++ {
		t.Run(fmt.Sprintf("seed-%d", seed), func(t *testing.T) {
			t.Parallel()
			c := newV2Comparison(t)
			draw := &v2UserScript{newScript(seed, false)}
			for _, r := range []v2Request{
				v2JSON("PUT", "/enable", ""),
				v2JSON("PUT", "/users/root", `{"user":"root","password":"secret"}`),
				v2JSON("PUT", "/users/u", `{"user":"u","password":"pass","roles":["r"]}`),
				v2JSON("PUT", "/roles/r", `{"role":"r","permissions":{"kv":{"read":["/a/*"],"write":["/a/x"]}}}`),
				v2JSON("PUT", "/enable", ""),
			} {
				c.ask(r)
			}
			for range v2UserRequestsPerSeed {
				c.ask(draw.next())
			}
			off := v2JSON("DELETE", "/enable", "")
			off.user = v2Root
			c.ask(off)
			c.finish()
			if c.seen[401] < v2UserRequestsPerSeed/10 || c.seen[200]+c.seen[201] < v2UserRequestsPerSeed/5 {
				t.Errorf("the script proves little: %v", c.seen)
			}
		})
	}
}

// v2UserScript draws requests about users and roles, and of users.
type v2UserScript struct{ *script }

// documents for the pages of a user and of a role. NAME is the name in the path, mostly.
var (
	v2UserDocuments = []string{
		`{"user":"NAME","password":"pass"}`, `{"user":"NAME","password":"pass","roles":["r","guest"]}`,
		`{"user":"NAME","password":"secret"}`, `{"user":"NAME","password":""}`, `{"user":"NAME"}`,
		`{"user":"NAME","grant":["r"]}`, `{"user":"NAME","grant":["s","root"]}`, `{"user":"NAME","revoke":["r"]}`,
		`{"user":"NAME","grant":["s"],"revoke":["r"]}`, `{"user":"NAME","roles":["r"],"grant":["s"]}`,
		`{"user":"other","password":"x"}`, `{"user":`, `[]`, `{"user":1}`, ``,
	}
	v2RoleDocuments = []string{
		`{"role":"NAME"}`, `{"role":"NAME","permissions":{"kv":{"read":["/*"],"write":[]}}}`,
		`{"role":"NAME","permissions":{"kv":{"read":["/b","/a/*"],"write":["/b"]}}}`,
		`{"role":"NAME","grant":{"kv":{"read":["/b"],"write":["/b*"]}}}`, `{"role":"NAME","grant":{"kv":{"read":["/a/*"]}}}`,
		`{"role":"NAME","revoke":{"kv":{"read":["/b"],"write":[]}}}`, `{"role":"NAME","revoke":{"kv":{"read":["/none"]}}}`,
		`{"role":"NAME","permissions":{"kv":{"read":["/x"]}},"grant":{"kv":{"read":["/y"]}}}`,
		`{"role":"other"}`, `{`, `null`, ``,
	}
)

func (s *v2UserScript) next() v2Request {
	r := s.request()
	r.user = pick(s.script, "", "", "", v2Root, v2Root, v2Root, v2Root, "u:pass", "u:pass",
		pick(s.script, "u:wrong", "v:pass", "nobody:x", "root:wrong"))
	return r
}

func (s *v2UserScript) request() v2Request {
	method := pick(s.script, "GET", "PUT", "PUT", "PUT", "DELETE")
	document := func(from []string, name string) string {
		if method != "PUT" {
			return ""
		}
		return strings.ReplaceAll(pick(s.script, from...), "NAME", name)
	}
	switch n := s.rng.IntN(100); {
	case n < 5:
		return v2JSON(pick(s.script, "GET", "PUT", "PUT", "PUT", "DELETE", "POST"), "/enable", "")
	case n < 25:
		name := pick(s.script, "u", "u", "v", "w", "root")
		return v2JSON(method, "/users/"+name, document(v2UserDocuments, name))
	case n < 45:
		name := pick(s.script, "r", "r", "s", "guest", "root")
		return v2JSON(method, "/roles/"+name, document(v2RoleDocuments, name))
	case n < 52:
		return v2JSON(pick(s.script, "GET", "GET", "POST"), pick(s.script, "/users", "/roles", "/users/", "/roles/", "/users/a/b", "/nothing"), "")
	case n < 56:
		return v2Request{method: pick(s.script, "POST", "PUT", "DELETE"), path: "/v2/members/1234", kind: "application/json", form: `{"peerURLs":["http://PEER"]}`}
	case n < 60:
		return v2Request{method: "GET", path: pick(s.script, "/v2/members", "/v2/machines", "/v2/stats/self", "/v2/auth/enable")}
	}
	key := pick(s.script, "/a", "/a/x", "/a/y", "/a/y/z", "/b", "/b/x", "/bx", "/c", "/", "/_h")
	switch s.rng.IntN(6) {
	case 0, 1:
		return v2Put(key, "value=1")
	case 2:
		return v2Post(key, "value=1")
	case 3:
		return v2Delete(key + pick(s.script, "", "?recursive=true", "?dir=true"))
	case 4:
		return v2Get(key + pick(s.script, "", "?sorted=true", "?quorum=true"))
	default:
		return v2Get(key + "?recursive=true&sorted=true")
	}
}
