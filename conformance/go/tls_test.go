package conformance

import (
	"bufio"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// issuer is a CA for one test.
type issuer struct {
	t      *testing.T
	cert   *x509.Certificate
	key    crypto.Signer
	serial int64
}

func newIssuer(t *testing.T) *issuer {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &issuer{t: t, cert: cert, key: key, serial: 1}
}

// issue creates a certificate with a new key of this kind: p256, p521, rsa or ed25519.
func (i *issuer) issue(kind string, change func(*x509.Certificate)) tls.Certificate {
	i.t.Helper()
	var key crypto.Signer
	var err error
	switch kind {
	case "p256":
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "p521":
		key, err = ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	case "rsa":
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	case "ed25519":
		_, key, err = ed25519.GenerateKey(rand.Reader)
	}
	if err != nil {
		i.t.Fatal(err)
	}
	i.serial++
	template := &x509.Certificate{
		SerialNumber: big.NewInt(i.serial), Subject: pkix.Name{CommonName: "client"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	if change != nil {
		change(template)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, i.cert, key.Public(), i.key)
	if err != nil {
		i.t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// revoke writes a revocation list, as etcd reads it.
func (i *issuer) revoke(path string, certs ...tls.Certificate) {
	i.t.Helper()
	list := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: time.Now(), NextUpdate: time.Now().Add(time.Hour)}
	for _, c := range certs {
		leaf, err := x509.ParseCertificate(c.Certificate[0])
		if err != nil {
			i.t.Fatal(err)
		}
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries,
			x509.RevocationListEntry{SerialNumber: leaf.SerialNumber, RevocationTime: time.Now()})
	}
	der, err := x509.CreateRevocationList(rand.Reader, list, i.cert, i.key)
	if err != nil {
		i.t.Fatal(err)
	}
	writeFile(i.t, path, der)
}

func writeFile(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func writePair(t *testing.T, dir, name string, c tls.Certificate) (cert, key string) {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(dir, name+".crt"), filepath.Join(dir, name+".key")
	writeFile(t, cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate[0]}))
	writeFile(t, key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	return cert, key
}

func forServers(c *x509.Certificate) {
	c.Subject.CommonName = "server"
	c.IPAddresses, c.DNSNames = []net.IP{net.IPv4(127, 0, 0, 1)}, []string{"localhost"}
	c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
}

// tlsSetting is a directory of certificates and the flags that name them.
type tlsSetting struct {
	ca    *issuer
	dir   string
	roots *x509.CertPool
	flags []string
}

func newTLSSetting(t *testing.T, serverKey string) *tlsSetting {
	t.Helper()
	s := &tlsSetting{ca: newIssuer(t), dir: t.TempDir(), roots: x509.NewCertPool()}
	s.roots.AddCert(s.ca.cert)
	ca := filepath.Join(s.dir, "ca.crt")
	writeFile(t, ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.ca.cert.Raw}))
	cert, key := writePair(t, s.dir, "server", s.ca.issue(serverKey, forServers))
	s.flags = []string{"--cert-file=" + cert, "--key-file=" + key, "--trusted-ca-file=" + ca, "--client-cert-auth"}
	return s
}

// secureMember serves clients over TLS at secure, and its health in plaintext at client.
type secureMember struct {
	*member
	secure string
}

func (s *tlsSetting) start(t *testing.T, p program, flags ...string) *secureMember {
	t.Helper()
	m := newMember(t)
	secure := freeAddr(t)
	m.flags = append(append([]string{
		"--listen-client-urls=https://" + secure, "--advertise-client-urls=https://" + secure,
		"--listen-metrics-urls=http://" + m.client,
	}, s.flags...), flags...)
	m.start(p)
	return &secureMember{m, secure}
}

// ask makes one connection and one request and describes what a client sees.
func (m *secureMember) ask(config *tls.Config) string { return askAt(m.secure, config) }

// askAt performs a handshake and requests the version; it describes the result.
func askAt(address string, config *tls.Config) string {
	conn, err := (&net.Dialer{Timeout: callTimeout}).Dial("tcp", address)
	if err != nil {
		return err.Error()
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(callTimeout))
	secure := tls.Client(conn, config)
	if err := secure.Handshake(); err != nil {
		return err.Error()
	}
	// The server's verdict on the client's certificate arrives with the first read.
	fmt.Fprintf(secure, "GET /version HTTP/1.1\r\nHost: localhost\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(secure), nil)
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	return fmt.Sprintf("%s, %s", resp.Status, tls.VersionName(secure.ConnectionState().Version))
}

var times = regexp.MustCompile(`\d{4}-\d\d-\d\dT[\d:]+(Z|[+-][\d:]+)`)

// rejections are the logged reasons of rejected connections.
func (m *secureMember) rejections() []string {
	var reasons []string
	data, err := os.ReadFile(m.log)
	if err != nil {
		m.t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		var entry struct{ Msg, Error string }
		if json.Unmarshal([]byte(line), &entry) == nil && entry.Msg == "rejected connection on client endpoint" {
			reasons = append(reasons, times.ReplaceAllString(entry.Error, "TIME"))
		}
	}
	return reasons
}

// awaitRejection waits for one more line than before.
func (m *secureMember) awaitRejection(before int) string {
	m.t.Helper()
	for deadline := time.Now().Add(callTimeout); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if reasons := m.rejections(); len(reasons) > before {
			return reasons[len(reasons)-1]
		}
	}
	m.t.Fatalf("%v: no line about a refused connection", m)
	return ""
}

// Which clients are accepted, what they see, and what is logged: as with the reference.
func TestTLSMatrixAsReference(t *testing.T) {
	s := newTLSSetting(t, "p256")
	revoked := s.ca.issue("p256", nil)
	crl := filepath.Join(s.dir, "crl")
	s.ca.revoke(crl, revoked)
	stranger := newIssuer(t)

	members := map[string]*secureMember{}
	for _, p := range []program{ours(), real()} {
		members[p.name] = s.start(t, p, "--client-crl-file="+crl)
	}
	with := func(certs ...tls.Certificate) *tls.Config {
		return &tls.Config{RootCAs: s.roots, ServerName: "localhost", Certificates: certs}
	}
	limited := func(min, max uint16, certs ...tls.Certificate) *tls.Config {
		config := with(certs...)
		config.MinVersion, config.MaxVersion = min, max
		return config
	}
	good := s.ca.issue("p256", nil)
	cases := []struct {
		name   string
		config *tls.Config
		// in means that the client is accepted: nothing is logged then.
		in bool
		// lax means that the client may see something else: etcd closes the connection without an
		// alert, or with a less specific one.
		lax bool
	}{
		{name: "good", config: with(good), in: true},
		{name: "good, TLS 1.2", config: limited(0, tls.VersionTLS12, good), in: true},
		{name: "P-521", config: with(s.ca.issue("p521", nil)), in: true},
		{name: "RSA", config: with(s.ca.issue("rsa", nil)), in: true},
		{name: "RSA, TLS 1.2", config: limited(0, tls.VersionTLS12, s.ca.issue("rsa", nil)), in: true},
		{name: "Ed25519", config: with(s.ca.issue("ed25519", nil)), in: true},
		{name: "usage any", config: with(s.ca.issue("p256", func(c *x509.Certificate) {
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageAny}
		})), in: true},
		{name: "authority as client", config: with(s.ca.issue("p256", func(c *x509.Certificate) {
			c.IsCA, c.BasicConstraintsValid = true, true
		})), in: true},
		{name: "no certificate", config: with()},
		{name: "no certificate, TLS 1.2", config: limited(0, tls.VersionTLS12), lax: true},
		{name: "wrong authority", config: with(stranger.issue("p256", nil))},
		{name: "wrong authority, TLS 1.2", config: limited(0, tls.VersionTLS12, stranger.issue("p256", nil))},
		{name: "expired", config: with(s.ca.issue("p256", func(c *x509.Certificate) {
			c.NotAfter = time.Now().Add(-time.Minute)
		}))},
		{name: "not yet valid", config: with(s.ca.issue("p256", func(c *x509.Certificate) {
			c.NotBefore = time.Now().Add(time.Minute)
		}))},
		{name: "for servers only", config: with(s.ca.issue("p256", func(c *x509.Certificate) {
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		}))},
		{name: "revoked", config: with(revoked), lax: true},
		{name: "wrong name", config: &tls.Config{RootCAs: s.roots, ServerName: "example.com", Certificates: []tls.Certificate{good}}},
		{name: "server not trusted", config: &tls.Config{RootCAs: x509.NewCertPool(), ServerName: "localhost"}},
		{name: "TLS 1.1", config: limited(tls.VersionTLS10, tls.VersionTLS11, good)},
		{name: "unknown protocol", config: func() *tls.Config {
			config := with(good)
			config.NextProtos = []string{"spdy/1"}
			return config
		}(), lax: true},
	}
	for _, c := range cases {
		// The cases share the members: their log lines must not mix.
		t.Run(c.name, func(t *testing.T) {
			type outcome struct{ seen, logged string }
			outcomes := map[string]outcome{}
			for name, m := range members {
				before := len(m.rejections())
				o := outcome{seen: m.ask(c.config)}
				if !c.in {
					o.logged = m.awaitRejection(before)
				}
				if in := strings.HasPrefix(o.seen, "200 OK"); in != c.in {
					t.Errorf("%s: %+v", name, o)
				}
				outcomes[name] = o
			}
			ours, real := outcomes[ours().name], outcomes[real().name]
			if c.lax {
				ours.seen, real.seen = "", ""
			}
			switch c.name {
			// Go goes on to list the requested protocols.
			case "unknown protocol":
				real.logged, _, _ = strings.Cut(real.logged, " (")
			case "TLS 1.1":
				real.logged, _, _ = strings.Cut(real.logged, ": [")
			}
			// Go appends a guess.
			real.logged, _, _ = strings.Cut(real.logged, " (possibly because of")
			// The addresses of a broken connection vary.
			if ours != real && !strings.Contains(real.seen, "connection reset") && !strings.Contains(real.seen, "broken pipe") {
				t.Errorf("ours %+v, reference %+v", ours, real)
			}
		})
	}
}

// The Go client against a member with each kind of key.
func TestTLSGoClient(t *testing.T) {
	for _, kind := range []string{"p256", "p521", "rsa", "ed25519"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			s := newTLSSetting(t, kind)
			m := s.start(t, ours())
			config := &tls.Config{RootCAs: s.roots, Certificates: []tls.Certificate{s.ca.issue(kind, nil)}}
			client, err := clientv3.New(clientv3.Config{Endpoints: []string{"https://" + m.secure}, TLS: config})
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
			defer cancel()
			large := strings.Repeat("x", 1<<20)
			if _, err := client.Put(ctx, "a", large); err != nil {
				t.Fatal(err)
			}
			resp, err := client.Get(ctx, "a")
			if err != nil {
				t.Fatal(err)
			}
			if len(resp.Kvs) != 1 || string(resp.Kvs[0].Value) != large {
				t.Errorf("%d keys", len(resp.Kvs))
			}
		})
	}
}

// Certificates as openssl creates them by default: version 1, only a common name.
func TestTLSOpenSSLCertificates(t *testing.T) {
	for _, tool := range []string{"openssl", "curl"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("no %s on this machine", tool)
		}
	}
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "server.ext"), []byte("subjectAltName=IP:127.0.0.1\n"))
	shell := func(script string) (string, error) {
		cmd := exec.Command("sh", "-ec", script)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	out, err := shell(`
		KEY="-newkey rsa:2048 -nodes"
		openssl req -x509 $KEY -days 2 -subj /CN=authority -keyout ca.key -out ca.crt
		for name in server client; do
			openssl req $KEY -subj /CN=$name -keyout $name.pkcs8 -out $name.csr
			openssl rsa -in $name.pkcs8 -traditional -out $name.key
		done
		openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile server.ext -out server.crt
		openssl x509 -req -in client.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -out client.crt
		openssl req -x509 $KEY -days 2 -subj /CN=self -addext subjectAltName=IP:127.0.0.1 -keyout self.key -out self.crt
	`)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	file := func(name string) string { return filepath.Join(dir, name) }
	s := &tlsSetting{flags: []string{
		"--cert-file=" + file("server.crt"), "--key-file=" + file("server.key"),
		"--trusted-ca-file=" + file("ca.crt"), "--client-cert-auth",
	}}
	m := s.start(t, ours())
	get := func(m *secureMember, flags string) (string, error) {
		return shell(fmt.Sprintf("curl -sS --max-time 30 %s https://%s/version", flags, m.secure))
	}
	for _, flags := range []string{"", "--tls-max 1.2", "--http1.1", "--http2", "--no-alpn"} {
		out, err := get(m, flags+" --cacert ca.crt --cert client.crt --key client.key")
		if err != nil || !strings.Contains(out, "etcdserver") {
			t.Errorf("curl %s: %v: %s", flags, err, out)
		}
	}
	if out, err := get(m, "--cacert ca.crt"); err == nil {
		t.Errorf("let in without a certificate: %s", out)
	}
	if out, err := shell("curl -sS --max-time 30 http://" + m.secure + "/version"); err == nil {
		t.Errorf("let in without TLS: %s", out)
	}
	// The server's own certificate as the CA, on both sides.
	s = &tlsSetting{flags: []string{
		"--cert-file=" + file("self.crt"), "--key-file=" + file("self.key"),
		"--trusted-ca-file=" + file("self.crt"), "--client-cert-auth",
	}}
	m = s.start(t, ours())
	ctl := exec.Command(filepath.Join(binDir, "etcdctl"), "--endpoints=https://"+m.secure,
		"--cacert="+file("self.crt"), "--cert="+file("self.crt"), "--key="+file("self.key"), "put", "a", "b")
	if out, err := ctl.CombinedOutput(); err != nil {
		t.Errorf("etcdctl: %v: %s", err, out)
	}
}

// Our etcdctl can connect to either server.
func TestTLSMemberOfEachProgram(t *testing.T) {
	s := newTLSSetting(t, "p256")
	cert, key := writePair(t, s.dir, "client", s.ca.issue("p256", nil))
	for _, p := range []program{ours(), real()} {
		m := s.start(t, p)
		ctl := exec.Command(filepath.Join(binDir, "etcdctl"), "--endpoints="+m.secure,
			"--cacert="+filepath.Join(s.dir, "ca.crt"), "--cert="+cert, "--key="+key, "endpoint", "health")
		if out, err := ctl.CombinedOutput(); err != nil || !strings.Contains(string(out), "is healthy") {
			t.Errorf("%s: %v: %s", p.name, err, out)
		}
	}
}

func forElsewhere(c *x509.Certificate) {
	forServers(c)
	c.IPAddresses, c.DNSNames = []net.IP{net.IPv4(192, 0, 2, 1)}, nil
}

func forUnknownName(c *x509.Certificate) {
	forServers(c)
	c.IPAddresses, c.DNSNames = nil, []string{"elsewhere.invalid"}
}

func onlyForServing(c *x509.Certificate) {
	forServers(c)
	c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
}

// Which clients are rejected and why, as curl and the Go client report it: the same for both
// programs.
func TestTLSMatrixForTools(t *testing.T) {
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("no curl on this machine")
	}
	s := newTLSSetting(t, "rsa")
	other := newIssuer(t)
	file := func(name string) string { return filepath.Join(s.dir, name) }
	writeFile(t, file("other.crt"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: other.cert.Raw}))
	revoked := s.ca.issue("p256", nil)
	s.ca.revoke(file("crl"), revoked)
	expired := func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }
	certs := map[string]tls.Certificate{
		"good": s.ca.issue("p256", nil), "rsa": s.ca.issue("rsa", nil), "ed25519": s.ca.issue("ed25519", nil),
		"expired": s.ca.issue("p256", expired), "stranger": other.issue("p256", nil), "revoked": revoked,
	}
	for name, cert := range certs {
		writePair(t, s.dir, name, cert)
	}
	members := []*secureMember{s.start(t, real(), "--client-crl-file="+file("crl")), s.start(t, ours(), "--client-crl-file="+file("crl"))}
	plain := []*member{startMember(t, real()), startMember(t, ours())}

	cases := []struct {
		name, cert, ca, scheme string
		flags                  []string
		// toPlain means that the member serves plaintext; in means that the client is accepted.
		toPlain, in bool
		// lax means that curl may word it differently.
		lax bool
	}{
		{name: "good", cert: "good", in: true},
		{name: "RSA", cert: "rsa", in: true},
		{name: "Ed25519", cert: "ed25519", in: true},
		{name: "TLS 1.2", cert: "good", flags: []string{"--tls-max", "1.2"}, in: true},
		{name: "HTTP/1.1", cert: "good", flags: []string{"--http1.1"}, in: true},
		{name: "expired", cert: "expired"},
		{name: "wrong authority", cert: "stranger"},
		// etcd closes the connection without an alert.
		{name: "revoked", cert: "revoked", lax: true},
		{name: "no certificate"},
		{name: "server of another authority", cert: "good", ca: "other.crt"},
		{name: "wrong name", cert: "good", flags: []string{"--connect-to", "example.com::127.0.0.1:"}},
		{name: "TLS 1.1", cert: "good", flags: []string{"--tls-max", "1.1"}},
		{name: "plaintext to TLS", scheme: "http"},
		// etcd closes the connection without a response.
		{name: "TLS to plaintext", cert: "good", toPlain: true, lax: true},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var told []string
			for i, m := range members {
				address := m.secure
				if c.toPlain {
					address = plain[i].client
				}
				curl, went := curlTo(s.dir, address, c.scheme, c.ca, c.cert, c.flags)
				if went != c.in {
					t.Errorf("%s: curl: %s", m.program.name, curl)
				}
				told = append(told, curl)
				if len(c.flags) == 0 {
					if err := s.getByClient(address, c.scheme, c.ca, certs[c.cert]); (err == nil) != c.in {
						t.Errorf("%s: the Go client: %v", m.program.name, err)
					}
				}
			}
			if !c.lax && told[0] != told[1] && !brokenOff(told[0]) {
				t.Errorf("curl to the reference: %s, to ours: %s", told[0], told[1])
			}
		})
	}
}

// brokenOff reports whether curl lost the connection before it could read why: the reference may
// reset it right after its alert.
func brokenOff(curl string) bool {
	for _, text := range []string{"reset by peer", "Broken pipe", "not connected"} {
		if strings.Contains(curl, text) {
			return true
		}
	}
	return false
}

// curlTo requests the version from a member, and returns curl's message without connection-specific
// parts.
func curlTo(dir, address, scheme, ca, cert string, flags []string) (string, bool) {
	if scheme == "" {
		scheme = "https"
	}
	if ca == "" {
		ca = "ca.crt"
	}
	host, port, _ := strings.Cut(address, ":")
	args := append([]string{"-sS", "--max-time", "30", "--cacert", ca}, flags...)
	if len(flags) > 0 && flags[0] == "--connect-to" {
		host = "example.com"
		args[len(args)-1] = "example.com:" + port + ":" + address
	}
	if cert != "" {
		args = append(args, "--cert", cert+".crt", "--key", cert+".key")
	}
	curl := exec.Command("curl", append(args, scheme+"://"+host+":"+port+"/version")...)
	curl.Dir = dir
	out, err := curl.CombinedOutput()
	text := strings.ReplaceAll(string(out), port, "PORT")
	return fmt.Sprintf("%s (%v)", text, err), err == nil && strings.Contains(text, "etcdserver")
}

// getByClient reads a key with the official client.
func (s *tlsSetting) getByClient(address, scheme, ca string, cert tls.Certificate) error {
	config := &tls.Config{RootCAs: s.roots}
	if ca != "" {
		config.RootCAs = x509.NewCertPool()
	}
	if cert.Certificate != nil {
		config.Certificates = []tls.Certificate{cert}
	}
	endpoint := "https://" + address
	if scheme == "http" {
		endpoint, config = "http://"+address, nil
	}
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{endpoint}, TLS: config, Logger: zap.NewNop()})
	if err != nil {
		return err
	}
	defer client.Close()
	// A rejected client is not told so, but waits.
	limit, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	_, err = client.Get(limit, "a")
	return err
}
