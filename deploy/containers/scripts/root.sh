# root.sh FOLDER: fills FOLDER with the file system of an image that has Python and no shell.
set -eu
root=$1
packages="ca-certificates libbz2-1.0 libc6 libcrypt1 libexpat1 libffi8 libgcc-s1 liblzma5 libncursesw6 libpython3.11-minimal
  libpython3.11-stdlib libreadline8 libsqlite3-0 libssl3 libstdc++6 libtinfo6 libuuid1 media-types netbase python3.11-minimal
  tzdata zlib1g"
mkdir -p "$root/var/lib/dpkg/status.d" "$root/etc/ssl/certs" "$root/tmp" "$root/var/cache/dragoman" /debs
cd /debs
chmod 1777 . # apt downloads as a user of its own
apt-get update -q
# shellcheck disable=SC2086
apt-get download -q $packages
for package in ./*.deb; do
  dpkg-deb --extract "$package" "$root"
  # Where scanners look for the packages of an image without dpkg.
  dpkg-deb --field "$package" >"$root/var/lib/dpkg/status.d/$(dpkg-deb --field "$package" Package)"
done
rm -rf "$root/usr/share/man" "$root/usr/share/lintian" "$root/usr/share/bash-completion" "$root/usr/sbin" "$root/sbin" \
  "$root/usr/share/ca-certificates" "$root/etc/init.d"
cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
ldconfig -r "$root"
printf '%s\n' 'root:x:0:0:root:/:/nonexistent' 'dragoman:x:10001:10001:dragoman:/var/cache/dragoman:/nonexistent' \
  >"$root/etc/passwd"
printf '%s\n' 'root:x:0:' 'dragoman:x:10001:' >"$root/etc/group"
printf 'hosts: files dns\n' >"$root/etc/nsswitch.conf"
chmod 1777 "$root/tmp"
chown 10001:10001 "$root/var/cache/dragoman"
find "$root/usr/lib" -name '__pycache__' -prune -exec rm -rf {} +
chroot "$root" /usr/bin/python3.11 -m compileall -q /usr/lib/python3.11
chroot "$root" /usr/bin/python3.11 -c 'import bz2, ctypes, hashlib, lzma, readline, sqlite3, ssl, uuid, zlib'
