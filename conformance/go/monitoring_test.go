package conformance

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// What operators look at and are woken by: ../../dist/prometheus and ../../dist/grafana.
const (
	rulesFile     = "../../dist/prometheus/etcd-rules.yml"
	rulesTestFile = "../prometheus/etcd-rules-test.yml"
	dashboardFile = "../../dist/grafana/etcd.json"
)

// Alerts fire when they should.
func TestAlertRules(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"check", "rules", rulesFile}, {"test", "rules", rulesTestFile}} {
		out, err := exec.Command("promtool", args...).CombinedOutput()
		if err != nil {
			t.Errorf("promtool %s: %v (package prometheus)\n%s", strings.Join(args, " "), err, out)
		}
	}
}

// prometheus is a running server that scrapes members.
type prometheus struct {
	t       *testing.T
	address string
	dir     string
}

func startPrometheus(t *testing.T, members []*member) *prometheus {
	t.Helper()
	p := &prometheus{t: t, address: freeAddr(t), dir: t.TempDir()}
	rules, err := filepath.Abs(rulesFile)
	if err != nil {
		t.Fatal(err)
	}
	var targets []string
	for _, m := range members {
		targets = append(targets, m.client)
	}
	list, _ := json.Marshal(targets)
	config := fmt.Sprintf(`
global: {scrape_interval: 500ms, scrape_timeout: 500ms, evaluation_interval: 1s}
rule_files: [%q]
scrape_configs:
  - job_name: etcd
    static_configs: [{targets: %s}]
`, rules, list)
	file := filepath.Join(p.dir, "prometheus.yml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("prometheus", "--config.file="+file, "--storage.tsdb.path="+filepath.Join(p.dir, "data"),
		"--web.listen-address="+p.address)
	log, err := os.Create(filepath.Join(p.dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatalf("%v (package prometheus)", err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	return p
}

// get asks its API and decodes the data.
func (p *prometheus) get(path string, data any) error {
	client := http.Client{Timeout: callTimeout}
	resp, err := client.Get("http://" + p.address + "/api/v1/" + path)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer := struct {
		Status, Error string
		Data          any
	}{Data: data}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return err
	}
	if answer.Status != "success" {
		return fmt.Errorf("%s", answer.Error)
	}
	return nil
}

// samples is the number of series that an expression gives now, without those that are no number.
func (p *prometheus) samples(expression string) (int, error) {
	var data struct {
		Result []struct{ Value [2]any }
	}
	if err := p.get("query?query="+url.QueryEscape(expression), &data); err != nil {
		return 0, err
	}
	n := 0
	for _, sample := range data.Result {
		if sample.Value[1] != "NaN" {
			n++
		}
	}
	return n, nil
}

// alerts are the names of those whose condition holds, for however long.
func (p *prometheus) alerts() map[string]bool {
	p.t.Helper()
	var data struct {
		Alerts []struct{ Labels map[string]string }
	}
	if err := p.get("alerts", &data); err != nil {
		p.t.Fatal(err)
	}
	names := map[string]bool{}
	for _, alert := range data.Alerts {
		names[alert.Labels["alertname"]] = true
	}
	return names
}

// panels are the expressions of the dashboard, by the title of their panel.
func panels(t *testing.T) map[string][]string {
	t.Helper()
	text, err := os.ReadFile(dashboardFile)
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(text, &dashboard); err != nil {
		t.Fatal(err)
	}
	found := map[string][]string{}
	for _, panel := range dashboard.Panels {
		for _, target := range panel.Targets {
			expression := strings.NewReplacer("$__rate_interval", "10s", "$job", "etcd").Replace(target.Expr)
			found[panel.Title] = append(found[panel.Title], expression)
		}
	}
	return found
}

// A dashboard of a cluster at work has something to show in every panel, and nobody is woken. When a
// member is gone, somebody is.
func TestMonitoringOfACluster(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, "--metrics=extensive")
	c.start(ours(), ours(), ours())
	c.leader()
	p := startPrometheus(t, c.members)
	work, stop := context.WithCancel(context.Background())
	defer stop()
	worked := make(chan struct{})
	go func() {
		defer close(worked)
		for i := 0; work.Err() == nil; i++ {
			everyKindOfRequest(work, c.members[i%2].client3(), i)
		}
	}()
	defer func() { stop(); <-worked }()
	for title, expressions := range panels(t) {
		for _, expression := range expressions {
			insist(t, "fill the panel "+title, func() error {
				n, err := p.samples(expression)
				if err == nil && n == 0 {
					err = fmt.Errorf("no data for %s", expression)
				}
				return err
			})
		}
	}
	for name := range p.alerts() {
		// A machine that is busy with tests is as slow as one that alerts are for.
		if name != "etcdGRPCRequestsSlow" && name != "etcdMemberCommunicationSlow" && !strings.HasPrefix(name, "etcdHigh") {
			t.Errorf("alert %s of a cluster that is well", name)
		}
	}
	c.members[2].kill()
	eventually(t, "the alert that a member is down", func() bool { return p.alerts()["etcdMembersDown"] })
	c.members[1].kill()
	eventually(t, "the alert that there is no quorum", func() bool {
		alerts := p.alerts()
		return alerts["etcdInsufficientMembers"] && alerts["etcdNoLeader"]
	})
}

// everyKindOfRequest does what fills panels; that it fails now and then is one of them.
func everyKindOfRequest(work context.Context, c *clientv3.Client, i int) {
	deadline, cancel := context.WithTimeout(work, 2*time.Second)
	defer cancel()
	key := fmt.Sprintf("k%d", i%100)
	put, err := c.Put(deadline, key, "v")
	if err != nil {
		return
	}
	c.Get(deadline, key)
	c.Get(deadline, "")
	c.Txn(deadline).Then(clientv3.OpPut(key, "w"), clientv3.OpGet(key)).Commit()
	c.Delete(deadline, key)
	if lease, err := c.Grant(deadline, 60); err == nil {
		c.KeepAliveOnce(deadline, lease.ID)
		c.Revoke(deadline, lease.ID)
	}
	watching, stop := context.WithCancel(deadline)
	watch := c.Watch(watching, key, clientv3.WithRev(put.Header.Revision))
	<-watch
	stop()
	if i%50 == 10 {
		c.Compact(deadline, put.Header.Revision)
	}
}
