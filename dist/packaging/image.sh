#!/usr/bin/env bash
# image.sh BIN_DIR VERSION ARCH OUT: an OCI image as an archive, without a daemon and without a base image. It is laid out as etcd's
# own: programs in /usr/local/bin, working directory /var/lib/etcd, the server as the command, root unless told otherwise. Beside the
# programs it has what they are linked with (a few libraries of this machine's glibc), and authorities of certificates, if this
# machine has them.
set -euo pipefail
bin=$1 version=$2 arch=$3 out=$4
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root
blobs=$work/image/blobs/sha256
mkdir -p "$root"/{usr/local/bin,var/lib,tmp,etc} "$blobs"
install -d -m 0700 "$root/var/lib/etcd"
chmod 1777 "$root/tmp"
install -m 0755 "$bin"/{etcd,etcdctl,etcdutl} "$root/usr/local/bin/"

# The loader and the libraries, at the paths where they are looked for.
ldd "$bin"/{etcd,etcdctl,etcdutl} | grep -o '/[^ ]*\.so[^ ]*' | sort -u | while read -r library; do
    install -D -m 0755 "$(readlink -f "$library")" "$root$library"
done
printf 'root:x:0:0:root:/:/sbin/nologin\netcd:x:65532:65532:etcd:/var/lib/etcd:/sbin/nologin\n' >"$root/etc/passwd"
printf 'root:x:0:\netcd:x:65532:\n' >"$root/etc/group"
printf 'hosts: files dns\n' >"$root/etc/nsswitch.conf"
if [[ -f /etc/ssl/certs/ca-certificates.crt ]]; then
    install -D -m 0644 /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
fi
for package in libc6 libgcc-s1; do
    [[ ! -f /usr/share/doc/$package/copyright ]] || install -D -m 0644 "/usr/share/doc/$package/copyright" "$root/usr/share/doc/$package/copyright"
done
install -D -m 0644 LICENSE "$root/usr/share/doc/retcd/copyright"

# blob FILE: moves a file to its digest's name, and prints digest and size.
blob() {
    local digest size
    digest=$(sha256sum "$1" | cut -d' ' -f1)
    size=$(stat -c %s "$1")
    mv "$1" "$blobs/$digest"
    echo "$digest $size"
}

tar --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" --format=gnu -C "$root" -cf "$work/layer.tar" .
diff_id=$(sha256sum "$work/layer.tar" | cut -d' ' -f1)
gzip -9n "$work/layer.tar"
read -r layer layer_size < <(blob "$work/layer.tar.gz")

created=$(date -u -d "@$SOURCE_DATE_EPOCH" +%Y-%m-%dT%H:%M:%SZ)
cat >"$work/config" <<END
{"created":"$created","architecture":"$arch","os":"linux","config":{"ExposedPorts":{"2379/tcp":{},"2380/tcp":{}},"Env":["PATH=/usr/local/bin"],"Cmd":["/usr/local/bin/etcd"],"WorkingDir":"/var/lib/etcd","Labels":{"org.opencontainers.image.title":"retcd","org.opencontainers.image.version":"$version","org.opencontainers.image.licenses":"Apache-2.0"}},"rootfs":{"type":"layers","diff_ids":["sha256:$diff_id"]},"history":[{"created":"$created","created_by":"dist/packaging/image.sh"}]}
END
read -r config config_size < <(blob "$work/config")
cat >"$work/manifest" <<END
{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:$config","size":$config_size},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"sha256:$layer","size":$layer_size}]}
END
read -r manifest manifest_size < <(blob "$work/manifest")
cat >"$work/image/index.json" <<END
{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:$manifest","size":$manifest_size,"annotations":{"org.opencontainers.image.ref.name":"$version","io.containerd.image.name":"localhost/retcd:$version"}}]}
END
printf '{"imageLayoutVersion":"1.0.0"}' >"$work/image/oci-layout"
tar --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" --format=gnu -C "$work/image" -cf "$out" oci-layout index.json blobs
