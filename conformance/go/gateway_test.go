package conformance

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

const (
	gatewayRequestsPerSeed = 2000
	gatewayRecordedMax     = 400
)

// The JSON gateway answers requests that were changed at random as etcd's does: the same status,
// code, text and document, whether they are still JSON, still messages, or neither.
//
// CONFORMANCE_RECORD names a file for the first requests of the first seed and etcd's answers, for
// the server's own tests (crates/server/tests/gateway/mutated.rs).
func TestSameAnswersOfGateway(t *testing.T) {
	seeds := uint64(3)
	if n, err := strconv.ParseUint(os.Getenv("CONFORMANCE_SEEDS"), 10, 32); err == nil {
		seeds = n
	}
	for seed := uint64(1); seed <= seeds; seed++ {
		t.Run(fmt.Sprintf("seed-%d", seed), func(t *testing.T) {
			t.Parallel()
			draw := rand.New(rand.NewPCG(seed, 0))
			sides := []*member{startMember(t, ours()), startMember(t, real())}
			seen := map[int]int{}
			differences := 0
			record := recorder(t, seed)
			for range gatewayRequestsPerSeed {
				request := gatewayRequests[draw.IntN(len(gatewayRequests))]
				body := mutateJSON(draw, request.body)
				a, b := postJSON(t, sides[0], request.path, body), postJSON(t, sides[1], request.path, body)
				seen[b.status]++
				record(request.path, body, b)
				if reflect.DeepEqual(a, b) {
					continue
				}
				t.Errorf("%s %q\n  ours: %v\n  etcd: %v", request.path, body, a, b)
				if differences++; differences == 10 {
					t.Fatal("and so on")
				}
			}
			t.Logf("answers by status: %v", seen)
			if seen[200] < gatewayRequestsPerSeed/10 || seen[400] < gatewayRequestsPerSeed/10 {
				t.Error("the requests are all alike")
			}
		})
	}
}

// recorder writes requests and answers to the file that CONFORMANCE_RECORD names, if it does.
func recorder(t *testing.T, seed uint64) func(path, body string, answer gatewayAnswer) {
	name := os.Getenv("CONFORMANCE_RECORD")
	if name == "" || seed != 1 {
		return func(string, string, gatewayAnswer) {}
	}
	file := need(os.Create(name))(t)
	t.Cleanup(func() { file.Close() })
	lines, left := json.NewEncoder(file), gatewayRecordedMax
	lines.SetEscapeHTML(false)
	return func(path, body string, answer gatewayAnswer) {
		if left--; left < 0 {
			return
		}
		line := map[string]any{"path": path, "body": body, "status": answer.status}
		if !utf8.ValidString(body) {
			line["body"], line["base64"] = base64.StdEncoding.EncodeToString([]byte(body)), true
		}
		if len(answer.lines) > 0 {
			last, _ := answer.lines[len(answer.lines)-1].(map[string]any)
			if inner, ok := last["error"].(map[string]any); ok {
				last = inner
			}
			if code, ok := last["code"]; ok {
				line["code"], line["message"] = code, last["message"]
			}
		}
		if err := lines.Encode(line); err != nil {
			t.Error(err)
		}
	}
}

type gatewayRequest struct{ path, body string }

// Nothing in here waits, costs long, or has an answer that depends on the member or the time: so no
// key has a lease, which might end.
var gatewayRequests = []gatewayRequest{
	{"/v3/kv/put", `{"key":"Zm9v","value":"YmFy","prev_kv":true}`},
	{"/v3/kv/put", `{"key":"Zm9v","value":"","prevKv":false,"ignore_value":true}`},
	{"/v3/kv/put", `{"key":"\u005am9v\/w=="}`},
	{"/v3/kv/range", `{"key":"Zm9v","range_end":"Zm9w","limit":"10","revision":0,"sort_order":"DESCEND","sort_target":"MOD"}`},
	{"/v3/kv/range", `{"key":"AA==","rangeEnd":"AA==","count_only":true,"minModRevision":"2","max_create_revision":-1}`},
	{"/v3/kv/range", ` {"key" : "_-8" ,"serializable":true,"sortOrder":1,"sortTarget":4,"unknown":{"a":[1,2.5e3,null,"x\n"]}} `},
	{"/v3/kv/deleterange", `{"key":"Zm9v","range_end":"Zm9w","prev_kv":true}`},
	{"/v3/kv/txn", `{"compare":[{"key":"Zm9v","target":"VALUE","result":"NOT_EQUAL","value":"YmFy"}],"success":[{"request_put":{"key":"dA==","value":"MQ=="}},{"request_range":{"key":"dA=="}}],"failure":[{"requestDeleteRange":{"key":"dA==","prevKv":true}}]}`},
	{"/v3/kv/txn", `{"compare":[{"key":"dA==","target":1,"createRevision":"0"},{"key":"dA==","target":"LEASE","lease":0,"range_end":"dQ=="}],"success":[{"request_txn":{"success":[{"request_put":{"key":"bg=="}}]}}]}`},
	{"/v3/kv/compaction", `{"revision":"3","physical":true}`},
	{"/v3/lease/grant", `{"ID":"7","TTL":"100000"}`},
	{"/v3/lease/grant", `{"ID":8,"TTL":1e5}`},
	{"/v3/lease/revoke", `{"ID":"8"}`},
	{"/v3/kv/lease/timetolive", `{"ID":"7","keys":true}`},
	{"/v3/lease/keepalive", `{"ID":"7"}{"ID":9}`},
	{"/v3/cluster/member/list", `{"linearizable":true}`},
	// An action that there is none of ends etcd.
	{"/v3/maintenance/alarm", `{"memberID":"1","alarm":"NOSPACE"}`},
	{"/v3/maintenance/hashkv", `{"revision":"3"}`},
	{"/v3/maintenance/downgrade", `{"action":"VALIDATE","version":"3.x"}`},
	{"/v3/auth/status", `{}`},
	{"/v3/auth/user/add", `{"name":"u","options":{"no_password":true}}`},
	{"/v3/auth/user/get", `{"name":"u"}`},
	{"/v3/auth/role/add", `{"name":"r"}`},
	{"/v3/auth/role/grant", `{"name":"r","perm":{"permType":"READWRITE","key":"YQ==","range_end":"Yg=="}}`},
	{"/v3/auth/role/get", `{"role":"r"}`},
	{"/v3/auth/role/revoke", `{"role":"r","key":"YQ==","rangeEnd":"Yg=="}`},
}

// Values that are on the edge of something.
var oddJSON = []string{
	`null`, `true`, `false`, `""`, `0`, `-0`, `1`, `-1`, `1.0`, `1.5`, `1e2`, `10e-1`, `0.1e1`, `1E+1`, `9223372036854775807`,
	`9223372036854775808`, `-9223372036854775808`, `18446744073709551615`, `2147483648`, `1e20`, `1e999999999999`, `"1"`, `"-1"`,
	`" 1"`, `"1 "`, `"1 2"`, `"1,"`, `"1x"`, `"1.0"`, `"1e1"`, `"0x1"`, `"+1"`, `"01"`, `"NaN"`, `[]`, `[[]]`, `{}`, `[{}]`, `[null]`, `{"a":1}`,
	`"ASCEND"`, `"ascend"`, `"VALUE"`, `"Zg"`, `"Zg=="`, `"Zg="`, `"Zh=="`, `"_-8="`, `"_+8="`, `"/+8"`, `"Zm\n9v"`, `"Zg==\r\n"`, `"!"`,
	`"\ud800"`, `"\ud83d\ude00"`, `"\ud800\u0041"`, `"\u0000"`, `"\/"`, `"\x"`, `"\u12"`, "\"\xff\"", "\"\x01\"", "\"\u00e9\"", `01`, `1.`, `-`, `+1`, `tru`, `nulL`,
	`"\ud800abcdef"`, `/**/1`, `'a'`, `.5`, `Infinity`, `"\"`,
}

// mutateJSON changes a text here and there: by bytes, by values, and by whole parts.
func mutateJSON(draw *rand.Rand, body string) string {
	for range draw.IntN(4) {
		at := func() int { return draw.IntN(len(body) + 1) }
		switch draw.IntN(9) {
		case 0:
			i := at()
			body = body[:i] + string(rune(32+draw.IntN(95))) + body[i:]
		case 1:
			i, j := at(), at()
			body = body[:min(i, j)] + body[max(i, j):]
		case 2:
			i, j, k := at(), at(), at()
			part := body[min(i, j):min(max(i, j), min(i, j)+40)]
			body = body[:k] + part + body[k:]
		case 3, 4, 5:
			body = replaceValue(draw, body)
		case 6:
			// Another spelling of a name.
			names := [][2]string{{"range_end", "rangeEnd"}, {"prev_kv", "prevKv"}, {"request_", "request"}, {"sort_order", "sortOrder"}, {"revision", "Revision"}, {"ID", "id"}, {"key", "\\u006bey"}}
			name := names[draw.IntN(len(names))]
			body = strings.Replace(body, name[0], name[1], 1)
		case 7:
			i := at()
			body = body[:i] + []string{" ", "\n", "\t", ",", ":", "{", "}", "[", "]", "\""}[draw.IntN(10)] + body[i:]
		case 8:
			// A member more, of any value.
			if i := strings.LastIndexByte(body, '}'); i > 0 {
				name := []string{"key", "value", "x", "revision", "ID", "@type", "[a.b]", ""}[draw.IntN(8)]
				body = body[:i] + fmt.Sprintf(",%q:%s", name, oddJSON[draw.IntN(len(oddJSON))]) + body[i:]
			}
		}
	}
	return body
}

// replaceValue puts an odd value where one is.
func replaceValue(draw *rand.Rand, body string) string {
	var colons []int
	for i := range len(body) {
		if body[i] == ':' {
			colons = append(colons, i)
		}
	}
	if len(colons) == 0 {
		return oddJSON[draw.IntN(len(oddJSON))]
	}
	from := colons[draw.IntN(len(colons))] + 1
	to := from
	for to < len(body) && !strings.ContainsRune(",}]", rune(body[to])) {
		to++
	}
	return body[:from] + oddJSON[draw.IntN(len(oddJSON))] + body[to:]
}

// gatewayAnswer is what must be equal.
type gatewayAnswer struct {
	status int
	lines  []any
}

func postJSON(t *testing.T, m *member, path, body string) gatewayAnswer {
	t.Helper()
	client := http.Client{Timeout: 30 * time.Second}
	response, err := client.Post("http://"+m.client+path, "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatalf("%s %q: %v", path, body, err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatalf("%s %q: %v", path, body, err)
	}
	answer := gatewayAnswer{status: response.StatusCode}
	decoder := json.NewDecoder(bytes.NewReader(text))
	for decoder.More() {
		var line any
		if err := decoder.Decode(&line); err != nil {
			t.Fatalf("%s %q: %q: %v", path, body, text, err)
		}
		answer.lines = append(answer.lines, plainJSON("", line))
	}
	return answer
}

// plainJSON leaves out what differs between two members, and the spaces that Go's protobuf draws.
func plainJSON(name string, value any) any {
	switch value := value.(type) {
	case map[string]any:
		for name, inner := range value {
			switch name {
			case "cluster_id", "member_id", "raft_term", "name", "peerURLs", "clientURLs", "lease", "TTL":
				delete(value, name)
			default:
				value[name] = plainJSON(name, inner)
			}
		}
	case []any:
		for i := range value {
			value[i] = plainJSON(name, value[i])
		}
	case string:
		// Ids that the server has drawn.
		if name == "ID" && len(value) > 12 {
			return "ID"
		}
		return strings.ReplaceAll(value, "\u00a0", " ")
	}
	return value
}
