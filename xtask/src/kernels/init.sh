#!/busybox sh
# The guest's first process: makes a root of the host's files and goes there.
#
# cgroup2 is mounted alone at /sys/fs/cgroup, as systemd does it today.
run() {
    /busybox "$@" || {
        echo "guest: $* failed"
        /busybox poweroff -f
    }
}

run mkdir -p /proc /dev /host /memory /root
run mount -t proc proc /proc
run mount -t devtmpfs dev /dev
while read -r module; do
    run insmod "/modules/$module"
done </modules/order

run mount -t 9p -o ro,trans=virtio,version=9p2000.L,cache=loose,msize=262144 host /host
run mount -t tmpfs memory /memory
run mkdir /memory/upper /memory/work
run mount -t overlay -o lowerdir=/host,upperdir=/memory/upper,workdir=/memory/work root /root

run mount -t proc proc /root/proc
run mount -t sysfs sys /root/sys
run mount --move /dev /root/dev
run mkdir -p /root/dev/shm /root/dev/pts
run mount -t devpts devpts /root/dev/pts
for directory in run tmp var/tmp dev/shm; do
    run mount -t tmpfs memory "/root/$directory"
    run chmod 1777 "/root/$directory"
done
run mount -t cgroup2 none /root/sys/fs/cgroup
run mount -t bpf bpf /root/sys/fs/bpf
run mkdir /root/run/shared
run mount -t 9p -o trans=virtio,version=9p2000.L shared /root/run/shared

export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
exec /busybox switch_root /root /bin/bash /run/shared/start.sh
