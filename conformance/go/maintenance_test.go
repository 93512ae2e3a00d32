package conformance

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

func TestStatusAndAlarm(t *testing.T) {
	onEach(t, func(t *testing.T, m *member) {
		c := m.dial()
		lease := need(c.Grant(ctx(t), 1000))(t)
		need(c.Put(ctx(t), "k", "v", clientv3.WithLease(lease.ID)))(t)
		s := need(c.Status(ctx(t), m.client))(t)
		if s.Version != "3.7.1" || s.StorageVersion != "3.7.0" || s.Leader != s.Header.MemberId || s.IsLearner ||
			s.DbSize <= 0 || s.DbSizeInUse <= 0 || s.DbSizeQuota != 2<<30 || s.RaftIndex == 0 || s.RaftAppliedIndex == 0 ||
			s.RaftTerm == 0 || len(s.Errors) != 0 || s.DowngradeInfo == nil || s.DowngradeInfo.Enabled {
			t.Errorf("status: %v", s)
		}

		maint := pb.NewMaintenanceClient(m.conn())
		alarm := func(action pb.AlarmRequest_AlarmAction) *pb.AlarmResponse {
			return need(maint.Alarm(ctx(t), &pb.AlarmRequest{Action: action, MemberID: s.Header.MemberId, Alarm: pb.AlarmType_NOSPACE}))(t)
		}
		if r := alarm(pb.AlarmRequest_ACTIVATE); len(r.Alarms) != 1 || r.Alarms[0].MemberID != s.Header.MemberId {
			t.Errorf("raised: %v", r)
		}
		if list := need(c.AlarmList(ctx(t)))(t); len(list.Alarms) != 1 || list.Alarms[0].Alarm != pb.AlarmType_NOSPACE {
			t.Errorf("list: %v", list)
		}
		if s := need(c.Status(ctx(t), m.client))(t); len(s.Errors) != 1 || !strings.Contains(s.Errors[0], "NOSPACE") {
			t.Errorf("status under the alarm: %v", s.Errors)
		}
		// Requests that take space are refused, those that free space are not.
		_, err := c.Put(ctx(t), "k", "w")
		wantError(t, "put", err, rpctypes.ErrGRPCNoSpace)
		_, err = c.Grant(ctx(t), 10)
		wantError(t, "grant", err, rpctypes.ErrGRPCNoSpace)
		_, err = c.Txn(ctx(t)).Then(clientv3.OpPut("k", "w")).Commit()
		wantError(t, "txn", err, rpctypes.ErrGRPCNoSpace)
		need(c.Get(ctx(t), "k"))(t)
		need(c.Delete(ctx(t), "other"))(t)
		need(c.Txn(ctx(t)).Then(clientv3.OpDelete("k")).Commit())(t)
		need(c.Revoke(ctx(t), lease.ID))(t)
		need(c.Compact(ctx(t), 2))(t)
		need(c.Defragment(ctx(t), m.client))(t)
		if r := need(c.AlarmDisarm(ctx(t), &clientv3.AlarmMember{}))(t); len(r.Alarms) != 1 {
			t.Errorf("disarmed: %v", r)
		}
		need(c.Put(ctx(t), "k", "w"))(t)
	})
}

func TestHashAndSnapshot(t *testing.T) {
	onEach(t, func(t *testing.T, m *member) {
		c := m.dial()
		populate(t, c)
		maint := pb.NewMaintenanceClient(m.conn())
		one, two := need(maint.Hash(ctx(t), &pb.HashRequest{}))(t), need(maint.Hash(ctx(t), &pb.HashRequest{}))(t)
		if one.Hash == 0 || one.Hash != two.Hash {
			t.Errorf("hash: %v, %v", one, two)
		}

		stream := need(maint.Snapshot(ctx(t), &pb.SnapshotRequest{}))(t)
		var whole []byte
		var remaining uint64
		for {
			r, err := stream.Recv()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if r.Version != "3.7.0" || len(whole) > 0 && r.RemainingBytes > remaining {
				t.Errorf("version %q, remaining %d after %d", r.Version, r.RemainingBytes, remaining)
			}
			whole, remaining = append(whole, r.Blob...), r.RemainingBytes
		}
		if remaining != 0 {
			t.Errorf("ended with %d bytes remaining", remaining)
		}
		data, sum := whole[:len(whole)-sha256.Size], whole[len(whole)-sha256.Size:]
		if want := sha256.Sum256(data); !bytes.Equal(sum, want[:]) || len(data)%512 != 0 {
			t.Errorf("%d bytes, trailer %x, want %x", len(data), sum, want)
		}
		path := filepath.Join(t.TempDir(), "db")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		checkBolt(t, path)
	})
}

// Writes continue during defragmentation, and none is lost.
func TestDefragmentDuringWrites(t *testing.T) {
	onEach(t, func(t *testing.T, m *member) {
		c := m.dial()
		// 20 MB that a compaction frees.
		var last int64
		for i := range 200 {
			last = need(c.Put(ctx(t), fmt.Sprintf("bulk/%d", i%4), strings.Repeat("x", 100_000)))(t).Header.Revision
		}
		need(c.Compact(ctx(t), last, clientv3.WithCompactPhysical()))(t)
		before := need(c.Status(ctx(t), m.client))(t)
		a := &acks{value: map[string]int{}}
		load := a.load(m, 4)
		a.await(t, 50)
		need(c.Defragment(ctx(t), m.client))(t)
		a.await(t, a.total()+50)
		load.finish()
		a.check(t, c)
		if after := need(c.Status(ctx(t), m.client))(t); after.DbSize >= before.DbSize/2 {
			t.Errorf("%d bytes became %d", before.DbSize, after.DbSize)
		}
		m.stop()
		checkBolt(t, m.db())
	})
}
